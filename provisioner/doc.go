// Package provisioner is Plinth's control plane: claims in, PersistentVolumes
// out, over the ledger of package ledger.
//
// # How a claim becomes a volume
//
// The provisioner library (sig-storage-lib-external-provisioner) watches
// claims and calls Provision. Provision reads the StorageClass and the claim,
// refuses what cannot be honoured, places the volume, writes a PlinthVolume
// and waits for its node to report Ready. The wait is short: then the claim
// rests. The library is told to ignore it, which costs no event and no
// back-off (ProvisioningInBackground would cost a warning and a retry for each
// claim of a burst), and the change of the PlinthVolume's status wakes it. What
// the library would do for a claim that goes meanwhile, the chores do. Nothing
// polls.
//
// # How waking works
//
// The library feeds its queues from the informers of claims and volumes that
// it is given. Those are wrapped (wakeable), so that the handler that the
// library registered can be called once more for one object: for a claim when
// its PlinthVolume changes, when its StorageClass is replaced or when a place
// for it appears; for a PersistentVolume when its PlinthVolume is gone. The
// work queue drops doubles and runs an object again that is woken while it is
// being worked on, so no wake-up is lost. A rate limiter of our own keeps
// what waits for a wake-up out of the retry back-off: it comes round by itself
// only as a safety net.
//
// # What refusing costs
//
// The library holds claims with an InvalidArgument status back for five
// minutes whatever happens. Provision therefore never returns a gRPC status:
// a refused claim waits for a change that could help, and that wakes it.
//
// A claim that waits for its first consumer is not given to Provision before
// the scheduler has chosen a node, and the scheduler chooses none while
// nothing can hold the claim. So that its user is told why, such claims are
// judged as soon as they are seen (explain), with the same words.
package provisioner
