package main_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/opencloud/ocnode/cmd/ocnodetest"
)

const (
	tcpOnly = "--host.listen=/ip4/127.0.0.1/tcp/0"
	// otherKeys is what whoever cannot come in is told as the likely cause.
	otherKeys = "the two may have different private network keys (host.psk), or only one of them has one"
)

// newPSK has ocnode make a private network key, and returns the path of its file.
func newPSK(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run(t, dir, 0, "key", "psk", "swarm.key")
	return filepath.Join(dir, "swarm.key")
}

// newPrivateSeed returns a bare libp2p host in the private network.
func newPrivateSeed(t *testing.T, psk string) host.Host {
	t.Helper()
	f, err := os.Open(psk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	key, err := pnet.DecodeV1PSK(f)
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.PrivateNetwork(key), libp2p.Transport(tcp.NewTCPTransport), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func TestAKeyOfAPrivateNetworkIsMadeOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "swarm.key")
	out, log := run(t, dir, 0, "key", "psk", "swarm.key")
	if out != "wrote swarm.key\nnext: copy it to each node, and start them with --host.psk swarm.key\n" || log != "" {
		t.Errorf("it prints %q and %q", out, log)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("it is %v, %v", info.Mode(), err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	run(t, dir, 0, "config", "check", "--host.psk", "swarm.key", "--config=")

	out, log = run(t, dir, 1, "key", "psk", "swarm.key")
	if out != "" {
		t.Errorf("it prints %q", out)
	}
	expectMessage(t, log, "swarm.key is there already and stays as it is", "name another file")
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	_, log = run(t, dir, 1, "key", "psk", "link")
	expectMessage(t, log, "link is there already")
	_, log = run(t, dir, 1, "key", "psk", "missing/swarm.key")
	expectMessage(t, log, "there is no folder missing", "mkdir -p missing")
	_, log = run(t, dir, 1, "key", "psk", "swarm.key/swarm.key")
	expectMessage(t, log, "swarm.key/swarm.key cannot be written: not a directory")
	expectFile(t, path, string(first))
	expectFolder(t, dir, "link", "swarm.key")

	printed, log := run(t, dir, 0, "key", "psk")
	if log != "" || printed == string(first) {
		t.Errorf("it prints %q and %q", printed, log)
	}
	write(t, filepath.Join(dir, "printed"), printed)
	run(t, dir, 0, "config", "check", "--host.psk", "printed", "--config=")
	again, _ := run(t, dir, 0, "key", "psk")
	if again == printed {
		t.Error("it makes the same key twice")
	}
}

// Over processes: a private network is one in which everything works, for who has the key.
func TestAPrivateNetworkWorksEndToEnd(t *testing.T) {
	t.Parallel()
	psk := newPSK(t)
	// An entry is announced with its heartbeat: what is lost is said again soon.
	member := []string{tcpOnly, "--host.psk", psk, "--registry.heartbeat=3s"}
	a := start(t, t.TempDir(), member...)
	b := start(t, t.TempDir(), append(member, "--host.bootstrap", a.Addrs[0])...)

	seed := newPrivateSeed(t, psk)
	native := connect(t, seed, b.Addrs[0])
	_, heard := joinTopic(t, seed, native)
	store := joinDHT(t, seed, native, dht.ModeClient)

	// It is told of no address to listen on, so that it takes those of the built-in list.
	p := launch(t, t.TempDir(), freePorts[1:], "--modules=indexer", "--indexer.natives", a.Addrs[0], "--host.psk", psk, "--registry.heartbeat=3s")
	x := ready(t, p)
	for _, addr := range x.Addrs {
		if strings.Contains(addr, "/udp/") {
			t.Errorf("it listens on %s", addr)
		}
	}
	if listed := b.lists(x.PeerID); listed.Via != a.PeerID {
		t.Errorf("it is listed by way of %q, want %s", listed.Via, a.PeerID)
	}
	ctx, cancel := context.WithTimeout(t.Context(), ocnodetest.Patience)
	defer cancel()
	told, err := heard.Next(ctx)
	if err != nil || string(told.GetData()) != x.PeerID {
		t.Fatalf("the gossip is %v, %v", told, err)
	}
	ocnodetest.Eventually(t, "the DHT has it", func() bool {
		_, err := store.GetValue(t.Context(), seedKey+x.PeerID)
		return err == nil
	})

	// Whoever asks over libp2p has to have the key too, in a flag, a variable or the file.
	dir := t.TempDir()
	write(t, filepath.Join(dir, "config.yaml"), fmt.Sprintf("host: {psk: %s}\n", psk))
	for name, tt := range map[string]struct {
		dir     string
		environ []string
		args    []string
	}{
		"a flag":     {t.TempDir(), nil, []string{"--host.psk", psk}},
		"a variable": {t.TempDir(), []string{"OCNODE_HOST__PSK=" + psk}, nil},
		"a file":     {dir, nil, nil},
		"--config":   {t.TempDir(), nil, []string{"--config", filepath.Join(dir, "config.yaml")}},
	} {
		for _, command := range []string{"ls", "natives", "get " + x.PeerID} {
			p := launch(t, tt.dir, tt.environ, append(append(strings.Fields(command), tt.args...), "--native", b.Addrs[0])...)
			p.ExpectExit(0)
			if id := map[bool]string{true: a.PeerID, false: x.PeerID}[command == "natives"]; !strings.Contains(p.Out.String(), id) {
				t.Errorf("%s, by %s, prints no %s: %s", command, name, id, p.Out.String())
			}
		}
	}
	w := launch(t, dir, nil, "watch", "--native", b.Addrs[0], "-o", "json")
	w.Prints(x.PeerID)
}

func TestWhoHasNotTheKeyOfAPrivateNetworkIsRefusedAndTold(t *testing.T) {
	t.Parallel()
	ours, theirs := newPSK(t), newPSK(t)
	private := start(t, t.TempDir(), tcpOnly, "--host.psk", ours)
	public := start(t, t.TempDir(), tcpOnly)
	for name, tt := range map[string]struct {
		native *node
		args   []string
	}{
		"another key":            {private, []string{"--host.psk", theirs}},
		"public meets a private": {private, nil},
		"private meets public":   {public, []string{"--host.psk", ours}},
	} {
		t.Run(name, func(t *testing.T) {
			at := tt.native.Addrs[0]
			var n *node
			told := func() (faults []string) {
				x := start(t, t.TempDir(), append(tt.args, tcpOnly, "--modules=indexer", "--indexer.natives", at)...)
				n = start(t, t.TempDir(), append(tt.args, tcpOnly, "--host.bootstrap", at)...)
				_, log := run(t, t.TempDir(), 4, append([]string{"ls", "--native", at}, tt.args...)...)
				for _, said := range []string{x.Logs("lease failed").Error, n.Logs("native cannot be reached; trying on").Error, log} {
					if !strings.Contains(said, otherKeys) {
						faults = append(faults, said)
					}
				}
				expectMessage(t, log, "node unreachable at "+at)
				return faults
			}
			faults := ocnodetest.Undisturbed(told) // a handshake that had no time says something else
			for _, said := range faults {
				t.Errorf("nothing about the key: %s", said)
			}
			for _, n := range []*node{tt.native, n} {
				if listed, err := n.list(); err != nil || len(listed) > 0 {
					t.Errorf("%v is listed, %v", listed, err)
				}
			}
		})
	}
}

func TestMistakesAboutAPrivateNetworkAreToldWhereTheyAre(t *testing.T) {
	t.Parallel()
	const peer = "/p2p/" + stranger
	tcpOnly := func(origin, key, addr string) wrong {
		return wrong{origin, key, []string{fmt.Sprintf("%q is over UDP", addr), "a private network (host.psk) carries TCP only", "/tcp/<port>"}}
	}
	for name, tt := range map[string]struct {
		key     string
		mode    os.FileMode
		file    string
		environ []string
		args    []string
		want    []wrong
	}{
		"addresses that it silences": {
			key: "whole", mode: 0o600,
			file: "host:\n  psk: swarm.key\n  listen:\n    - /ip4/127.0.0.1/tcp/1\n    - /ip4/127.0.0.1/udp/1/quic-v1\n" +
				"  announce: [/dns4/a.example/udp/1/quic-v1]\nindexer:\n  natives:\n    - /ip4/192.0.2.1/udp/2/quic-v1" + peer + "\n",
			environ: []string{"OCNODE_HOST__BOOTSTRAP=/dnsaddr/a.example,/ip4/192.0.2.1/udp/3/quic-v1" + peer},
			want: []wrong{
				tcpOnly("config.yaml:5", "host.listen", "/ip4/127.0.0.1/udp/1/quic-v1"),
				tcpOnly("config.yaml:6", "host.announce", "/dns4/a.example/udp/1/quic-v1"),
				tcpOnly("config.yaml:9", "indexer.natives", "/ip4/192.0.2.1/udp/2/quic-v1"+peer),
				tcpOnly("OCNODE_HOST__BOOTSTRAP", "host.bootstrap", "/ip4/192.0.2.1/udp/3/quic-v1"+peer),
			},
		},
		"the built-in list, set": {
			key: "whole", mode: 0o600, file: "host: {psk: swarm.key}\n", args: []string{"--host.listen=/ip4/0.0.0.0/tcp/4101,/ip4/0.0.0.0/udp/4101/quic-v1"},
			want: []wrong{tcpOnly("--host.listen", "host.listen", "/ip4/0.0.0.0/udp/4101/quic-v1")},
		},
		"no such file": {
			file: "host:\n  psk: swarm.key\n",
			want: []wrong{{"config.yaml:2", "host.psk", []string{`"swarm.key" is not there`, "`ocnode key psk FILE` makes one"}}},
		},
		"a short one": {
			key: "short", mode: 0o600, file: "host:\n  psk: swarm.key\n",
			want: []wrong{{"config.yaml:2", "host.psk", []string{`"swarm.key" has a key of 63 characters, want 64 hexadecimal digits`}}},
		},
		"one that others can read": {
			key: "whole", mode: 0o644, file: "\n", environ: []string{"OCNODE_HOST__PSK=swarm.key"},
			want: []wrong{{"OCNODE_HOST__PSK", "host.psk", []string{`"swarm.key" has mode 0644`, "chmod 600 swarm.key"}}},
		},
		"a folder": {
			file: "\n", args: []string{"--host.psk=."},
			want: []wrong{{"--host.psk", "host.psk", []string{"is not a regular file"}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if key, _ := run(t, dir, 0, "key", "psk"); tt.key != "" {
				if tt.key == "short" {
					key = key[:len(key)-2] + "\n"
				}
				path := filepath.Join(dir, "swarm.key")
				write(t, path, key)
				if err := os.Chmod(path, tt.mode); err != nil {
					t.Fatal(err)
				}
			}
			write(t, filepath.Join(dir, "config.yaml"), tt.file)
			expectMistakes(t, dir, tt.environ, tt.args, tt.want)
		})
	}
	// What is left out of the built-in list is so in what is shown, too.
	dir := t.TempDir()
	run(t, dir, 0, "key", "psk", "swarm.key")
	for _, modules := range []string{"native", "dht"} {
		s := printed[map[string]map[string]setting](t, dir, "config", "show", "--origin", "--host.psk=swarm.key", "--modules", modules)["host"]["listen"]
		if text := flagText(s.Value); strings.Contains(text, "udp") || strings.Count(text, "/tcp/") != 2 {
			t.Errorf("host.listen of %s is %s", modules, text)
		}
	}
	// One who asks is told of the same mistakes.
	_, log := run(t, dir, 2, "ls", "--native", "/ip4/127.0.0.1/udp/1/quic-v1"+peer, "--host.psk=swarm.key")
	expectMessage(t, log, "--native", "is over UDP")
	_, log = run(t, dir, 3, "ls", "--native", "/ip4/127.0.0.1/tcp/1"+peer, "--host.psk=missing")
	expectMessage(t, log, `--host.psk: "missing" is not there`)
	_, log = run(t, dir, 2, "ls", "--host.psk=swarm.key")
	expectMessage(t, log, "--host.psk is for asking over libp2p", "--native")
}
