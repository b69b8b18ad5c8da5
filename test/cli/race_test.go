//go:build race

package cli

// raceEnabled says that the tests run with the race detector.
const raceEnabled = true
