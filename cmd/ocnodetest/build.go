package ocnodetest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencloud/ocnode/ports/porttest"
)

// atOnce is how many parallel tests run at once, unless -parallel says so: a test of processes
// waits for them most of its time, and leaves the processors to others.
const atOnce = "8"

// Main builds the program of the current folder, as name, and runs the tests of m, which have
// its path in *path from then on. It returns the exit code.
func Main(m *testing.M, name string, path *string) (code int) {
	_ = flag.Set("test.parallel", atOnce)
	dir, err := os.MkdirTemp("", name+"-")
	if err == nil {
		defer os.RemoveAll(dir)
		*path = filepath.Join(dir, name)
		err = build(*path)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build builds the program of the current folder, with the race detector if the tests have it.
func build(path string) error {
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", path)
	if porttest.Raced() {
		cmd.Args = append(cmd.Args, "-race")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}
