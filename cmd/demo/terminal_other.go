//go:build !unix

package demo

import tea "charm.land/bubbletea/v2"

// divertStderr does nothing here: standard error has no descriptor to put elsewhere.
func divertStderr(string) (reveal func() error, err error) {
	return func() error { return nil }, nil
}

// job is this process, which nobody can stop and bring back.
type job struct{ nothing }

func (*job) controlled() bool                    { return false }
func (*job) watch(func(tea.Msg)) (finish func()) { return func() {} }
