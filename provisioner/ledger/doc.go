// Package ledger keeps the cluster's list of intended work: the PlinthVolume
// objects, whose specs the controller writes and whose statuses the agents
// write, and the PlinthNode objects that say what each node offers.
//
// Client is the ledger over the API server: a plain REST client for the kinds
// of plinth.dev and nothing else, so that an agent that uses it carries no
// typed clientset. Memory is the same ledger in memory, for tests, with the
// API server's rules that matter here: generations, finalizers, conflicts,
// field selectors and watches. View is the controller's picture of it: two
// watches, an index, and a way to wait for one object to change.
package ledger
