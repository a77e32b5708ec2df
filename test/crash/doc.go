// Package crash cuts `plinth standalone` short under load and looks for what
// was lost. Workers create, grow, copy, mount, fill and delete volumes over
// CSI; what was answered is written to a journal before anything else is done.
// After each cut the same pools are opened again and compared with it: what
// was acknowledged is there with its content, what was not may be there whole
// or not at all, and nothing is half.
//
// TestKill kills the process (kill -9); TestPowerLoss, which test/vm/power
// runs, takes a virtual machine's power away. The number of cuts is in
// PLINTH_CRASH_CUTS, the seed of what is asked for and of when is in
// PLINTH_CRASH_SEED and is printed. The same seed asks for the same; when
// exactly a cut falls is up to the machine.
package crash
