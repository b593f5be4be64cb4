package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencloud/ocnode/cmd/ocnodetest"
	"github.com/rogpeppe/go-internal/testscript"
)

// A reading is a command that reads something, and what comes of it in each
// situation. Every one of them is run with -o table and with -o json.
type reading struct {
	command                        string
	over                           string             // "" or what tells it from another one of this command
	document                       func([]byte) error // checks what it prints with -o json
	found, nothing, notFound, away outcome
	// evenWrong are the formats in which it prints what it has read even if that is wrong.
	evenWrong []string
	// endless is one that is interrupted once it has printed what it says.
	endless bool
}

// outcome is what comes of a command with these arguments.
type outcome struct {
	args string
	code int
	// says is a pattern of what it prints in both formats, on standard output if all is
	// well and else in its message.
	says string
}

// What the situations mean to a command that asks no node: found is what there mostly
// is, nothing is the least that can be, not found is what cannot be had, and away is
// with an --api at which nobody listens, which must not matter.
var readings = []reading{
	{
		"ls", "", document[[]listedIndexer],
		outcome{"--api $API", 0, `$PEER.*|"peerID": "$PEER"`},
		outcome{"--api $EMPTY", 0, ``},
		outcome{"--api $INDEXER", 1, `without the native module.* ask a native.*--api`},
		outcome{"--api $AWAY", 4, `unreachable at http://$AWAY.*start the node`},
		nil, false,
	},
	{
		"get", "", document[gotIndexer],
		outcome{"--api $API $PEER", 0, `$PEER`},
		outcome{"--api $EMPTY $PEER", 5, `no live indexer.*$PEER`},
		outcome{"--api $API $STRANGER", 5, `no live indexer.*$STRANGER`},
		outcome{"--api $AWAY $PEER", 4, `unreachable at http://$AWAY.*start the node`},
		nil, false,
	},
	{
		"ls", "libp2p", document[[]listedIndexer],
		outcome{"--native $NATIVE_ADDR --meta zone=eu-1", 0, `$PEER.*|"peerID": "$PEER"`},
		outcome{"--native $EMPTY_ADDR", 0, ``},
		outcome{"--native $INDEXER_ADDR", 1, `does not offer this.*ask another.*--api`},
		outcome{"--native $AWAY_ADDR", 4, `unreachable at $AWAY_ADDR.*start the node`},
		nil, false,
	},
	{
		"get", "libp2p", document[gotIndexer],
		outcome{"--native $NATIVE_ADDR $PEER", 0, `$PEER`},
		outcome{"--native $EMPTY_ADDR $PEER", 5, `no live indexer.*$PEER`},
		outcome{"--native $NATIVE_ADDR $STRANGER", 5, `no live indexer.*$STRANGER`},
		outcome{"--native $AWAY_ADDR $PEER", 4, `unreachable at $AWAY_ADDR.*start the node`},
		nil, false,
	},
	{
		"watch", "", eventDocuments,
		outcome{"--api $API", 0, `(?s)$PEER.*synced`},
		outcome{"--api $EMPTY", 0, `synced.*(0 live|"live":0)`},
		outcome{"--api $INDEXER", 1, `without the native module.* ask a native.*--native`},
		outcome{"--api $AWAY", 4, `unreachable at http://$AWAY.*start the node`},
		nil, true,
	},
	{
		"watch", "libp2p", eventDocuments,
		outcome{"--native $NATIVE_ADDR", 0, `(?s)$PEER.*synced`},
		outcome{"--native $EMPTY_ADDR", 0, `synced.*(0 live|"live":0)`},
		outcome{"--native $INDEXER_ADDR", 1, `does not offer this.*ask another.*--api`},
		outcome{"--native $AWAY_ADDR", 4, `unreachable at $AWAY_ADDR.*start the node`},
		nil, true,
	},
	{
		"natives", "", document[[]nativeDocument],
		outcome{"--api $API", 0, `$OTHER`},
		outcome{"--api $EMPTY", 0, `PEER ID|\[\]`},
		outcome{"--api $INDEXER", 1, `without the native module.* ask a native.*--native`},
		outcome{"--api $AWAY", 4, `unreachable at http://$AWAY.*start the node`},
		nil, false,
	},
	{
		"natives", "libp2p", document[[]nativeDocument],
		outcome{"--native $NATIVE_ADDR", 0, `$OTHER`},
		outcome{"--native $EMPTY_ADDR", 0, `PEER ID|\[\]`},
		outcome{"--native $INDEXER_ADDR", 1, `does not offer this.*ask another.*--api`},
		outcome{"--native $AWAY_ADDR", 4, `unreachable at $AWAY_ADDR.*start the node`},
		nil, false,
	},
	{
		"status", "", document[statusDocument],
		outcome{"--api $API", 0, `$NATIVE`},
		outcome{"--api $EMPTY", 0, `(LIVE +|"live": )0`},
		outcome{"--api $API/nowhere", 1, `not the answer of a node.*http.listen`},
		outcome{"--api $AWAY", 4, `unreachable at http://$AWAY.*start the node`},
		nil, false,
	},
	{
		"id", "", document[struct {
			PeerID string `json:"peerID"`
		}],
		outcome{"--data.dir $KEPT", 0, `$NATIVE`},
		outcome{"--data.dir new", 0, `12D3KooW`}, // it is made
		outcome{"--data.dir file", 1, `data.dir "file": .*not a directory; name a folder`},
		outcome{"--data.dir $KEPT --api $AWAY", 0, `$NATIVE`},
		nil, false,
	},
	{
		"key psk", "", document[struct {
			Key string `json:"key"`
		}],
		outcome{"", 0, `/key/swarm/psk/1.0.0/`},
		outcome{"-", 0, `/base16/`},
		outcome{"file", 1, `file is there already and stays as it is; name another file`},
		outcome{"--api $AWAY", 0, `/key/swarm/psk/1.0.0/`},
		nil, false,
	},
	{
		"modules", "", document[[]moduleDocument],
		outcome{"", 0, `native`},
		outcome{"--modules=", 0, `off`},
		outcome{"--modules natve", 3, `"natve", did you mean native`},
		outcome{"--api $AWAY", 0, `native`},
		nil, false,
	},
	{
		"version", "", document[struct {
			Version   string `json:"version"`
			GoVersion string `json:"goVersion"`
			Platform  string `json:"platform"`
		}],
		outcome{"", 0, `go1\.`},
		outcome{"--no-color", 0, `go1\.`},
		outcome{"1.2.3", 2, `takes no arguments and got "1.2.3"`},
		outcome{"--api $AWAY", 0, `go1\.`},
		nil, false,
	},
	{
		"config show", "", document[map[string]map[string]any],
		outcome{"--config kept.yaml", 0, `"?ttl"?: "?90s`},
		outcome{"", 0, `"?ttl"?: "?66s`},
		outcome{"--config missing.yaml", 3, `missing.yaml: no such file`},
		outcome{"--config kept.yaml --api $AWAY", 0, `"?ttl"?: "?90s`},
		[]string{"table", "json"}, false,
	},
	{
		"config check", "", document[struct {
			File     string   `json:"file"`
			Above    []string `json:"above"`
			Mistakes []struct {
				Origin  string `json:"origin"`
				Line    int    `json:"line"`
				Key     string `json:"key"`
				Message string `json:"message"`
			} `json:"mistakes"`
		}],
		outcome{"--config kept.yaml", 0, `kept.yaml: no mistakes|"file": "kept.yaml"`},
		outcome{"", 0, `no config.yaml here|"file": ""`},
		outcome{"--config missing.yaml", 3, `missing.yaml: no such file`},
		outcome{"--config kept.yaml --api $AWAY", 0, `kept.yaml: no mistakes|"file": "kept.yaml"`},
		[]string{"json"}, false,
	},
}

// The documents that the commands print, as docs and README.md promise them.
type (
	listedIndexer struct {
		PeerID    string            `json:"peerID"`
		Addr      string            `json:"addr"`
		Addrs     []string          `json:"addrs"`
		Meta      map[string]string `json:"meta"`
		State     string            `json:"state"`
		Source    string            `json:"source"`
		SeenAt    *time.Time        `json:"seenAt"`
		ExpiresAt time.Time         `json:"expiresAt"`
		Left      float64           `json:"leftSeconds"`
		Via       string            `json:"via"`
	}
	gotIndexer struct {
		listedIndexer
		Proof string `json:"proof"`
	}
	nativeDocument struct {
		PeerID    string   `json:"peerID"`
		Addrs     []string `json:"addrs"`
		Following bool     `json:"following"`
		RoundTrip float64  `json:"roundTripSeconds"`
		Live      int      `json:"live"`
		Lag       float64  `json:"lagSeconds"`
	}
	statusDocument struct {
		PeerID        string   `json:"peerID"`
		Addrs         []string `json:"addrs"`
		Modules       []string `json:"modules"`
		UptimeSeconds int      `json:"uptimeSeconds"`
		Live          int      `json:"live"`
		Known         int      `json:"known"`
	}
	moduleDocument struct {
		Name    string `json:"name"`
		State   string `json:"state"`
		From    string `json:"from"`
		Role    bool   `json:"role"`
		Fills   string `json:"fills"`
		Summary string `json:"summary"`
		Keys    []struct {
			Name    string `json:"name"`
			Type    string `json:"type"`
			Default any    `json:"default"`
			Env     string `json:"env"`
			Live    bool   `json:"live"`
			Help    string `json:"help"`
		} `json:"keys"`
	}
)

// document checks that text is one JSON document that has the fields of T, all of them
// and no other, and no null but where T has a pointer.
func document[T any](text []byte) error {
	var typed T
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&typed); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("something follows the document: %v", err)
	}
	again, err := json.Marshal(typed)
	if err != nil {
		return err
	}
	var is, want any
	if err := errors.Join(json.Unmarshal(text, &is), json.Unmarshal(again, &want)); err != nil {
		return err
	}
	if !reflect.DeepEqual(is, want) {
		return fmt.Errorf("it lacks a field, or spells one otherwise: want\n%s", again)
	}
	return noNull("", is)
}

// eventDocuments checks that each line of text is the document of an event.
func eventDocuments(text []byte) error {
	for line := range bytes.Lines(text) {
		var e map[string]any
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		// The last of those that happened together has it, and a native that is whole no
		// condition.
		delete(e, "cursor")
		without, err := json.Marshal(e)
		if err != nil {
			return err
		}
		check := document[struct {
			Kind string `json:"kind"`
			listedIndexer
		}]
		switch e["kind"] {
		case "reset":
			check = document[struct {
				Kind   string `json:"kind"`
				Reason string `json:"reason"`
			}]
		case "synced":
			check = document[struct {
				Kind string `json:"kind"`
				Live int    `json:"live"`
			}]
		}
		if err := check(without); err != nil {
			return fmt.Errorf("%s%w", line, err)
		}
	}
	return nil
}

func noNull(path string, value any) (err error) {
	switch v := value.(type) {
	case nil:
		if !strings.HasSuffix(path, ".seenAt") {
			return fmt.Errorf("%s is null", path)
		}
	case []any:
		for i, x := range v {
			err = errors.Join(err, noNull(fmt.Sprintf("%s[%d]", path, i), x))
		}
	case map[string]any:
		for name, x := range v {
			err = errors.Join(err, noNull(path+"."+name, x))
		}
	}
	return err
}

// script writes the script of one cell of the matrix.
func (r reading) script(o outcome, format string, a asked) string {
	var b strings.Builder
	says := os.Expand(o.says, func(name string) string { return regexp.QuoteMeta(a[name]) })
	command := fmt.Sprintf("ocnode %s %s -o %s", r.command, o.args, format)
	if r.endless && o.code == 0 {
		fmt.Fprintf(&b, "until '%s' %s\n", says, command)
	} else {
		fmt.Fprintf(&b, "exits %d %s\n", o.code, command)
	}
	prints := o.code == 0 || slices.Contains(r.evenWrong, format)
	if o.code == 0 {
		fmt.Fprintf(&b, "! stderr .\nstdout '%s'\n", says)
	} else {
		fmt.Fprintf(&b, "stderr '^ocnode: .*(%s)'\n", says)
	}
	switch {
	case !prints:
		b.WriteString("! stdout .\n")
	case format == "json":
		fmt.Fprintf(&b, "document %s\n", r.command)
	default:
		b.WriteString("stdout .\n")
	}
	return b.String() + "\n-- kept.yaml --\nregistry: {ttl: 90s}\n-- file --\nwhere a folder is asked for\n"
}

// TestTheCommandLine runs the matrix of readings, and the scripts in testdata, against
// a network of processes.
func TestTheCommandLine(t *testing.T) {
	t.Parallel()
	asked := startAsked(t)
	t.Run("readings", func(t *testing.T) {
		dir := t.TempDir()
		for _, r := range readings {
			for situation, o := range map[string]outcome{"found": r.found, "nothing": r.nothing, "not-found": r.notFound, "away": r.away} {
				for _, format := range []string{"table", "json"} {
					name := strings.ReplaceAll(fmt.Sprintf("%s-%s-%s-%s.txtar", r.command, r.over, situation, format), " ", "-")
					write(t, filepath.Join(dir, name), r.script(o, format, asked))
				}
			}
		}
		testscript.Run(t, asked.scripts(dir))
	})
	t.Run("scripts", func(t *testing.T) { testscript.Run(t, asked.scripts("testdata")) })
}

// asked is what the scripts may ask, by the names of their variables.
type asked map[string]string

// startAsked starts a native that is an indexer too, an indexer that registers with
// it, a native that follows it, and a native without anybody.
func startAsked(t *testing.T) asked {
	t.Helper()
	dir := t.TempDir()
	// Nobody is late while the scripts run.
	launched := func(dir string, args ...string) *node {
		return start(t, dir, append(args, "--registry.heartbeat=20m", "--registry.ttl=25m")...)
	}
	native := launched(dir, "--modules.indexer")
	indexer := launched(t.TempDir(), "--modules", "indexer", "--indexer.natives", native.Addrs[0], "--indexer.meta", "zone=eu-1")
	empty := launched(t.TempDir())
	other := launched(t.TempDir(), "--host.bootstrap", native.Addrs[0])
	native.lists(native.PeerID)
	native.lists(indexer.PeerID)
	ocnodetest.Eventually(t, "the natives follow each other", func() bool {
		var body struct{ Natives []struct{ Following bool } }
		status, err := native.get("/api/v1/natives", &body)
		return err == nil && status == http.StatusOK && len(body.Natives) == 1 && body.Natives[0].Following
	})
	return asked{
		"NATIVE_ADDR": native.Addrs[0], "EMPTY_ADDR": empty.Addrs[0], "INDEXER_ADDR": indexer.Addrs[0], "OTHER": other.PeerID,
		"AWAY_ADDR": fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", ocnodetest.UnusedPort(t), stranger),
		"API":       native.HTTP, "NATIVE": native.PeerID, "KEPT": filepath.Join(dir, "data"),
		"INDEXER": indexer.HTTP, "PEER": indexer.PeerID,
		"SHORT":    indexer.PeerID[:7] + "…" + indexer.PeerID[len(indexer.PeerID)-6:],
		"PEER_END": indexer.PeerID[len(indexer.PeerID)-6:],
		"EMPTY":    empty.HTTP,
		"AWAY":     fmt.Sprint("127.0.0.1:", ocnodetest.UnusedPort(t)),
		"STRANGER": stranger,
	}
}

// scripts is how the scripts in dir are run: with ocnode in the PATH, and with
// some commands more.
func (a asked) scripts(dir string) testscript.Params {
	return testscript.Params{
		Dir:                dir,
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", filepath.Dir(binary)+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector would wait a second at every exit
			env.Setenv("TERM", "xterm-256color")
			for name, value := range a {
				env.Setenv(name, value)
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "until": until, "completes": completes, "document": isDocument,
		},
	}
}

// exits runs a program and holds its exit code against the first argument, where exec
// only tells failure from success.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG…]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		failed, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%s: %v", args[1:], err)
		}
		got = failed.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// completes has ocnode complete a command line until its standard output matches the first
// argument: it gives a node half a second, which a busy machine may miss.
func completes(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: completes PATTERN [ARG…]")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(ocnodetest.Patience); ; {
		exits(ts, false, append([]string{"0", "ocnode", "__complete"}, args[1:]...))
		if out := ts.ReadFile("stdout"); pattern.MatchString(out) {
			return
		} else if time.Now().After(end) {
			ts.Fatalf("%s completes to %q", args[1:], out)
		}
	}
}

// until runs ocnode until its standard output matches the first argument, and then
// interrupts it, upon which it must succeed. What it printed is as of exec.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || args[1] != "ocnode" {
		ts.Fatalf("usage: until PATTERN ocnode [ARG…]")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var out, log ocnodetest.Output
	cmd := exec.Command(binary, args[2:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), []string{"GORACE=atexit_sleep_ms=0"}, &out, &log
	ts.Check(cmd.Start())
	matched := false
	for end := time.Now().Add(ocnodetest.Patience); !matched && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		matched = pattern.MatchString(out.String())
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	if err := cmd.Wait(); err != nil || !matched {
		ts.Fatalf("%s: %v; it prints %q and says %q", args[1:], err, out.String(), log.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs("printed"), []byte(out.String()), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("said"), []byte(log.String()), 0o600))
	ts.Check(ts.Exec("sh", "-c", "cat printed; cat said >&2"))
}

// isDocument checks that the last program printed the JSON document of a reading.
func isDocument(ts *testscript.TestScript, neg bool, args []string) {
	for _, r := range readings {
		if strings.Join(args, " ") == r.command && !neg {
			ts.Check(r.document([]byte(ts.ReadFile("stdout"))))
			return
		}
	}
	ts.Fatalf("usage: document READING")
}

// In ocnode modules | head -1 the reader may be gone before the first byte.
func TestAReaderThatIsGoneIsNotComplainedOf(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"modules", "modules -o json", "version", "completion bash", "--help"} {
		for _, before := range []string{"", "trap '' PIPE; "} { // as some who start programs do
			t.Run(before+command, func(t *testing.T) {
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				_ = r.Close()
				var log ocnodetest.Output
				cmd := exec.CommandContext(t.Context(), "sh", "-c", before+`exec "$0" `+command, binary)
				cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = t.TempDir(), []string{"GORACE=atexit_sleep_ms=0"}, w, &log
				err = cmd.Run()
				status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
				if status.Signal() != syscall.SIGPIPE || log.String() != "" {
					t.Errorf("it ends with %v and says %q, want it ended by the signal, as every program", err, log.String())
				}
			})
		}
	}
}
