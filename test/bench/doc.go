// Package bench measures what docs/performance.md promises: `make bench`. Each
// part is a test with the tag bench that writes down what it measured; the last
// one, TestHeld, prints them all as a table and fails where a promise is not
// held. What is compared is measured by turns on the same machine, and the
// median of the rounds counts: a ratio of two runs apart says nothing.
package bench
