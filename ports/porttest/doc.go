// Package porttest turns the promises of package ports into tests: one suite per
// port, which every adapter runs with a few lines and none skips a part of, and
// the registration frames of the contract with the answer each must get.
package porttest
