package deploytools

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/opencloud/ocnode/cmd/ocnodetest"
	"github.com/opencontainers/go-digest"
	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"
)

const (
	root       = "../.."
	dockerfile = root + "/deploy/Dockerfile"
	version    = "1.2.3-test"
)

// bare answers for every base image that it has nothing in it: the linter asks, and
// there is no registry to ask here.
type bare struct{}

func (bare) ResolveImageConfig(_ context.Context, ref string, _ sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return ref, digest.FromString(ref), []byte(`{"architecture":"amd64","os":"linux","config":{}}`), nil
}

var _ llb.ImageMetaResolver = bare{}

func TestTheLinterOfDockerHasNothingToSay(t *testing.T) {
	t.Parallel()
	if found := lint(t, read(t, dockerfile)); len(found) > 0 {
		t.Error(strings.Join(found, "\n"))
	}
	// It would say something.
	if found := lint(t, []byte("FROM scratch as x\nCMD echo $Y\n")); len(found) < 2 {
		t.Errorf("the linter found %q in a bad one", found)
	}
}

func lint(t *testing.T, text []byte) (found []string) {
	t.Helper()
	source := llb.NewSourceMap(nil, "Dockerfile", "Dockerfile", text)
	source.Definition = &llb.Definition{}
	results, err := dockerfile2llb.DockerfileLint(t.Context(), text, dockerfile2llb.ConvertOpt{MetaResolver: bare{}, SourceMap: source})
	if err != nil {
		t.Fatal(err)
	}
	if results.Error != nil {
		found = append(found, results.Error.Message)
	}
	for _, w := range results.Warnings {
		found = append(found, w.RuleName+": "+w.Detail)
	}
	return found
}

// image is what the last stage of the Dockerfile says of the image.
type image struct {
	env                     map[string]string
	user, workdir           string
	entrypoint, cmd, health []string
	volumes, ports          []string
}

// stages reads the Dockerfile.
func stages(t *testing.T) []instructions.Stage {
	t.Helper()
	parsed, err := parser.Parse(bytes.NewReader(read(t, dockerfile)))
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// stage returns the stage of this name, "" for the last.
func stage(t *testing.T, name string) instructions.Stage {
	t.Helper()
	list := stages(t)
	if name == "" {
		return list[len(list)-1]
	}
	i := slices.IndexFunc(list, func(s instructions.Stage) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("the Dockerfile has no stage %q", name)
	}
	return list[i]
}

func imageOf(t *testing.T, s instructions.Stage) image {
	t.Helper()
	m := image{env: make(map[string]string)}
	for _, c := range s.Commands {
		switch c := c.(type) {
		case *instructions.EnvCommand:
			for _, kv := range c.Env {
				m.env[kv.Key] = kv.Value
			}
		case *instructions.UserCommand:
			m.user = c.User
		case *instructions.WorkdirCommand:
			m.workdir = c.Path
		case *instructions.VolumeCommand:
			m.volumes = append(m.volumes, c.Volumes...)
		case *instructions.ExposeCommand:
			m.ports = append(m.ports, c.Ports...)
		case *instructions.HealthCheckCommand:
			m.health = c.Health.Test
		case *instructions.EntrypointCommand:
			m.entrypoint = c.CmdLine
		case *instructions.CmdCommand:
			m.cmd = c.CmdLine
		}
	}
	return m
}

func TestTheImageIsTheBinaryOfNobody(t *testing.T) {
	t.Parallel()
	last := stage(t, "")
	if last.BaseName != "scratch" {
		t.Errorf("it is made from %q", last.BaseName)
	}
	m := imageOf(t, last)
	if m.user != "65532:65532" || m.workdir != "/" {
		t.Errorf("user %q in %q", m.user, m.workdir)
	}
	if !slices.Equal(m.health, []string{"CMD", "/ocnode", "status"}) {
		t.Errorf("its health check is %q: without a shell it must be in exec form", m.health)
	}
	if !slices.Equal(m.entrypoint, []string{"/ocnode"}) || !slices.Equal(m.cmd, []string{"run"}) {
		t.Errorf("it runs %q %q", m.entrypoint, m.cmd)
	}
	if !slices.Equal(m.volumes, []string{m.env["OCNODE_DATA__DIR"]}) {
		t.Errorf("data.dir is %q, and the volumes are %q", m.env["OCNODE_DATA__DIR"], m.volumes)
	}
	if !slices.Equal(m.ports, []string{"4101/tcp", "4101/udp"}) {
		t.Errorf("it exposes %q", m.ports)
	}
	copied := make(map[string]string)
	for _, c := range last.Commands {
		if c, ok := c.(*instructions.CopyCommand); ok {
			copied[c.DestPath] = c.Chown
		}
	}
	if copied["/data"] != m.user {
		t.Errorf("/data belongs to %q, so %s cannot write to a new volume", copied["/data"], m.user)
	}
}

func TestTheImagesGoIsNewEnough(t *testing.T) {
	t.Parallel()
	mod, err := modfile.ParseLax("go.mod", read(t, root+"/go.mod"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stages(t) {
		name, tag, tagged := strings.Cut(s.BaseName, ":")
		if name != "golang" {
			continue
		}
		tag, _, _ = strings.Cut(tag, "-")
		if !tagged || strings.Count(tag, ".") != 2 || !semver.IsValid("v"+tag) {
			t.Errorf("%q does not name a patch release", s.BaseName)
		}
		if semver.Compare("v"+tag, "v"+mod.Go.Version) < 0 {
			t.Errorf("%s cannot build what asks for Go %s", s.BaseName, mod.Go.Version)
		}
	}
}

// made is what the image's build made here.
var made = struct {
	once sync.Once
	dir  string // /out of the stage that builds
	err  error
}{}

func TestMain(m *testing.M) {
	code := m.Run()
	if made.dir != "" {
		_ = os.RemoveAll(filepath.Dir(made.dir))
	}
	os.Exit(code)
}

// binary returns the path of ocnode, built as the Dockerfile says from what its
// .dockerignore lets through.
func binary(t *testing.T) string {
	t.Helper()
	build := stage(t, "build")
	made.once.Do(func() { made.dir, made.err = buildImage(build) })
	if made.err != nil {
		t.Fatal(made.err)
	}
	return filepath.Join(made.dir, "ocnode")
}

func buildImage(build instructions.Stage) (string, error) {
	dir, err := os.MkdirTemp("", "ocnode-image-")
	if err != nil {
		return "", err
	}
	src, out := filepath.Join(dir, "src"), filepath.Join(dir, "out")
	if err := copyContext(src); err != nil {
		return out, err
	}
	environ := append(os.Environ(), "GOWORK=off", "TARGETOS=", "TARGETARCH=", "VERSION="+version)
	for _, c := range build.Commands {
		switch c := c.(type) {
		case *instructions.EnvCommand:
			for _, kv := range c.Env {
				if kv.Key != "GOTOOLCHAIN" { // TestTheImagesGoIsNewEnough
					environ = append(environ, kv.String())
				}
			}
		case *instructions.RunCommand:
			script := strings.ReplaceAll(strings.Join(c.CmdLine, " "), "/out/", out+"/")
			run := exec.Command("/bin/sh", "-c", script)
			run.Dir, run.Env = src, environ
			if text, err := run.CombinedOutput(); err != nil {
				return out, fmt.Errorf("RUN %s: %w\n%s", script, err, text)
			}
		}
	}
	return out, nil
}

// copyContext copies what the build would be sent.
func copyContext(to string) error {
	f, err := os.Open(dockerfile + ".dockerignore")
	if err != nil {
		return err
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		return err
	}
	ignored, err := patternmatcher.New(patterns)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && path != root && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		skip, err := ignored.MatchesOrParentMatches(name)
		if err != nil || skip {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		copied := filepath.Join(to, name)
		return errors.Join(os.MkdirAll(filepath.Dir(copied), 0o700), os.WriteFile(copied, text, 0o600))
	})
}

func TestTheImagesBuildMakesOneStaticBinary(t *testing.T) {
	t.Parallel()
	path := binary(t)
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Error("it needs a loader, and the image has none")
	}
	out, err := exec.Command(path, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "ocnode "+version+" ") {
		t.Errorf("it calls itself %q, %v", out, err)
	}
	for name, mode := range map[string]fs.FileMode{"data": fs.ModeDir | 0o700, "tmp": fs.ModeDir | fs.ModeSticky | 0o777} {
		if info, err := os.Stat(filepath.Join(filepath.Dir(path), name)); err != nil || info.Mode() != mode {
			t.Errorf("/%s: %v, %v", name, info, err)
		}
	}
	for _, left := range []string{".ci", "docs", "README.md", "cmd/ocnode/main_test.go"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(filepath.Dir(path)), "src", left)); err == nil {
			t.Errorf("the build is sent %s", left)
		}
	}
}

// A container that publishes HTTP has a token, and its health check still passes.
func TestAContainerThatPublishesHTTPIsHealthy(t *testing.T) {
	t.Parallel()
	env := imageOf(t, stage(t, "")).env
	dir, port := t.TempDir(), ocnodetest.UnusedPort(t)
	env["OCNODE_DATA__DIR"] = filepath.Join(dir, "data")
	env["OCNODE_HTTP__LISTEN"] = fmt.Sprint(":", port)
	env["OCNODE_HOST__LISTEN"] = listen(ocnodetest.UnusedPort(t))
	env["OCNODE_HTTP__TOKEN"] = filepath.Join(dir, "token")
	refused := run(t, "without the file", dir, env, "run")
	if code := refused.Wait(ocnodetest.Patience); code != 3 {
		t.Errorf("without the file of the token it exits %d", code)
	}
	if err := os.WriteFile(env["OCNODE_HTTP__TOKEN"], []byte("0123456789abcdef\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	c := run(t, "a native", dir, env, "run")
	c.healthy()
	for path, want := range map[string]int{"/healthz": http.StatusOK, "/metrics": http.StatusUnauthorized} {
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s without the token: %d", path, resp.StatusCode)
		}
	}
	c.stop(ocnodetest.Patience)

	delete(env, "OCNODE_HTTP__TOKEN")
	refused = run(t, "without a token", dir, env, "run")
	if code := refused.Wait(ocnodetest.Patience); code != 3 || !strings.Contains(refused.Log.String(), "http.token") {
		t.Errorf("without a token it exits %d: %s", code, refused.Log.String())
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
