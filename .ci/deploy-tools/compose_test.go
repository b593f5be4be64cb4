package deploytools

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

const composeFile = root + "/deploy/compose.yaml"

// composed loads compose.yaml as docker compose does: schema, interpolation, merges and
// consistency.
func composed(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{composeFile})
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// mounted returns which volume is mounted where.
func mounted(s types.ServiceConfig) map[string]string {
	at := make(map[string]string)
	for _, v := range s.Volumes {
		at[v.Target] = v.Source
	}
	return at
}

func TestEveryServiceOfComposeIsConfinedAndSized(t *testing.T) {
	t.Parallel()
	project := composed(t)
	m := imageOf(t, stage(t, ""))
	for name, s := range project.Services {
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s keeps the capabilities of %q, with %q", name, s.CapDrop, s.SecurityOpt)
		}
		if file := filepath.Join(s.Build.Context, s.Build.Dockerfile); !sameFile(t, file, dockerfile) {
			t.Errorf("%s is built by %s", name, file)
		}
		if s.Build.Target != "" {
			_ = stage(t, s.Build.Target)
			continue
		}
		for _, p := range s.Ports {
			if p.Target == 4180 && s.Environment["OCNODE_HTTP__TOKEN"] == nil {
				t.Errorf("%s shows HTTP to others without a token", name)
			}
		}
		if !s.ReadOnly || s.User != "" {
			t.Errorf("%s can write to its image, or is run by %q", name, s.User)
		}
		if _, ok := mounted(s)[m.volumes[0]]; !ok {
			t.Errorf("%s has no volume at %s and forgets who it is", name, m.volumes[0])
		}
		if limit := s.Environment["GOMEMLIMIT"]; limit == nil || !nineTenths(t, *limit, int64(s.MemLimit)) {
			t.Errorf("%s sizes itself to %v, and may have %d", name, limit, s.MemLimit)
		}
	}
}

// The services of compose.yaml, each a process with its own environment and volumes,
// find each other.
func TestComposeUpIsANetwork(t *testing.T) {
	t.Parallel()
	project := composed(t)
	m := imageOf(t, stage(t, ""))
	volumes := make(map[string]string)
	for name := range project.Volumes {
		volumes[name] = t.TempDir()
	}
	var here []string // what to put for the names and ports of the containers
	ports, apis := make(map[string]int), make(map[string]int)
	for name := range project.Services {
		ports[name], apis[name] = ocnodetest.UnusedPort(t), ocnodetest.UnusedPort(t)
		here = append(here,
			"/dns4/"+name+"/tcp/4101", fmt.Sprint("/ip4/127.0.0.1/tcp/", ports[name]),
			"/dns4/"+name+"/udp/4101", fmt.Sprint("/ip4/127.0.0.1/udp/", ports[name]))
	}
	up := func() map[string]*container {
		started := make(map[string]*container)
		begin := func(name string) {
			s := project.Services[name]
			mounts := make(map[string]string)
			for at, volume := range mounted(s) {
				mounts[at] = volumes[volume]
			}
			if s.Build.Target != "" {
				once(t, s, mounts)
				rewrite(t, mounts, here)
				return
			}
			env := maps.Clone(m.env)
			for key, value := range s.Environment.Resolve(func(string) (string, bool) { return "", false }) {
				env[key] = *value
			}
			for key, value := range env {
				env[key] = under(mounts, value)
			}
			env = replace(env, append(here, ":4180", fmt.Sprint(":", apis[name]))...)
			env["OCNODE_HOST__LISTEN"] = listen(ports[name])
			started[name] = run(t, name, t.TempDir(), env, slices.Concat(m.cmd, s.Command)...)
		}
		err := project.ForEachService(nil, func(name string, _ *types.ServiceConfig) error {
			begin(name)
			return nil
		}, types.IncludeDependencies)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range started {
			c.healthy()
		}
		return started
	}

	first := up()
	if len(first) != 3 {
		t.Fatalf("%d nodes run", len(first))
	}
	a, b, x := first["native-a"], first["native-b"], first["indexer"]
	for _, native := range []*container{a, b} {
		got := native.lists()
		if got.PeerID != x.peerID() || got.Via != a.peerID() || got.Meta["zone"] != "eu-1" {
			t.Errorf("%s lists %+v, want %s by way of %s", native.name, got, x.peerID(), a.peerID())
		}
	}
	if out, err := b.ask("status"); err != nil || !strings.Contains(out, fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", ports["native-b"], b.peerID())) {
		t.Errorf("native-b does not tell the address it is to announce: %v\n%s", err, out)
	}
	before := []string{a.peerID(), b.peerID(), x.peerID()}
	for _, c := range []*container{x, b, a} { // who depends on another first, as compose has it
		c.stop(time.Duration(*project.Services[c.name].StopGracePeriod))
		for line := range strings.Lines(c.Log.String()) {
			// They start together, so that one may dial before the other listens.
			early := strings.Contains(line, "native cannot be reached; trying on") || strings.Contains(line, "lease failed")
			if strings.Contains(line, "level=ERROR") || strings.Contains(line, "level=WARN") && !early {
				t.Errorf("%s complains: %s", c.name, line)
			}
		}
	}

	second := up()
	if after := []string{second["native-a"].peerID(), second["native-b"].peerID(), second["indexer"].peerID()}; !slices.Equal(after, before) {
		t.Errorf("after another up the nodes are %q, and were %q", after, before)
	}
	second["native-b"].lists()
}

// once runs a service that ends: a shell script of the stage that it is made from. Only
// root may give files away, so chown is left out.
func once(t *testing.T, s types.ServiceConfig, mounts map[string]string) {
	t.Helper()
	bin := t.TempDir()
	if err := os.Symlink(binary(t), filepath.Join(bin, "ocnode")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "chown"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	shell := imageOf(t, stage(t, s.Build.Target)).entrypoint
	// A path begins after a blank or a redirection, unlike the names in a multiaddr.
	script := regexp.MustCompile(`([\s>])(/[a-z-]+)`).ReplaceAllStringFunc(s.Command[0], func(found string) string {
		if dir, ok := mounts[found[1:]]; ok {
			return found[:1] + dir
		}
		return found
	})
	cmd := exec.Command(shell[0], append(shell[1:], script)...)
	cmd.Env, cmd.Dir = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}, t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", s.Name, err, out)
	}
}

// rewrite puts what is here into the files that a script wrote.
func rewrite(t *testing.T, mounts map[string]string, here []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(mounts["/network"], "*.yaml"))
	if err != nil || len(files) != 3 {
		t.Fatalf("the nodes are told of each other in %q, %v", files, err)
	}
	for _, file := range files {
		text := strings.NewReplacer(here...).Replace(string(read(t, file)))
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func sameFile(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.Stat(b)
	if err != nil {
		t.Fatal(err)
	}
	return os.SameFile(x, y)
}
