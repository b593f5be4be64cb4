package domain

// Neighbour is neighbour, for the tests.
var Neighbour = neighbour
