// Package secret reads the small files that hold a secret: a key, a token.
package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// mayNot are the permissions that such a file must not grant: all of others', and the
// group's to write. The group may read, since orchestrators mount secrets so.
const mayNot fs.FileMode = 0o026

// Unfit is a file that is there and must not be used. It says what is wrong with it and
// what to do, as the rest of a sentence that begins with the file.
type Unfit string

func (u Unfit) Error() string { return string(u) }

// Read returns what the file at path holds, at most max bytes. The error is an Unfit, or
// what the system says of a file that is missing or cannot be read. advice says what to
// do about a file that is not what it should be.
func Read(path string, max int, advice string) ([]byte, error) {
	// Stat comes first, since opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	mode := info.Mode().Perm()
	switch {
	case !info.Mode().IsRegular():
		return nil, Unfit("is not a regular file: " + advice)
	case mode&mayNot != 0 && runtime.GOOS != "windows": // which has no such modes
		return nil, Unfit(fmt.Sprintf("has mode %#o, so that others than its owner can use or replace it: chmod 600 %s", mode, path))
	case info.Size() == 0:
		return nil, Unfit("is empty: " + advice)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, int64(max)+1))
	if err != nil {
		return nil, err
	}
	if len(text) > max {
		return nil, Unfit(fmt.Sprintf("has more than %d bytes: %s", max, advice))
	}
	return text, nil
}

// Create writes a new file with mode 0600, whole or not at all. What is there already
// stays as it is: the error then matches fs.ErrExist.
func Create(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// Unlike a rename, a link never replaces what has appeared meanwhile.
	return errors.Join(os.Link(f.Name(), path), syncDir(filepath.Dir(path)))
}

// syncDir makes the names in dir durable: without it a crash may forget the key that
// others have already met.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // where folders cannot be synced
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
