// Package porttest turns the promises of package ports into tests: a suite per port, which every
// adapter runs whole with a few lines, and the registration frames of the contract with their
// answers.
package porttest
