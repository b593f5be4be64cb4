package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/opencloud/ocnode/cmd/internal/display"
	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/opencloud/ocnode/ports"
	"github.com/spf13/cobra"
)

// askCommand is a command that asks a running node over HTTP. ask gets a client for it.
func (p *program) askCommand(cmd *cobra.Command, ask func(cmd *cobra.Command, node *httpapi.Client, args []string) error) *cobra.Command {
	addAskFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		node, err := p.node(cmd)
		if err != nil {
			return err
		}
		defer node.Close()
		return p.answered(ask(cmd, node, args))
	}
	return cmd
}

// readCommand is a command that reads what a native knows, over HTTP or over libp2p. read
// gets the native.
func (p *program) readCommand(cmd *cobra.Command, read func(cmd *cobra.Command, native reader, args []string) error) *cobra.Command {
	addAskFlags(cmd)
	cmd.Flags().StringArray("native", nil, "`multiaddr` of the native to ask over libp2p instead, with /p2p/<PeerID>")
	cmd.Flags().String(pskFlag, "", "with --native, the `file` of its private network's key (default: host.psk of the configuration)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		native, err := p.reader(cmd)
		if err != nil {
			return err
		}
		defer native.Close()
		return p.answered(read(cmd, native, args))
	}
	return cmd
}

const (
	tokenFlag = "token"
	// pskFlag is a key, as which the configuration reads it.
	pskFlag = "host.psk"
)

func addAskFlags(cmd *cobra.Command) {
	cmd.Flags().String("config", "", "the configuration `file` that says where HTTP listens, and names the files of http.token and host.psk")
	cmd.Flags().String(tokenFlag, "", "the `file` of the token that the node asks for (default, without --api: http.token of the configuration)")
}

// answered adds to the error of having asked what to do about it.
func (p *program) answered(err error) error {
	refusal, ok := errors.AsType[*httpapi.APIError](err)
	switch {
	case !ok:
		return err
	case refusal.Code == httpapi.CodeNotANative:
		return fmt.Errorf("%w; --api names the node to ask, --native a native", err)
	case refusal.Code == httpapi.CodeUnauthorized:
		return fmt.Errorf("%w; --token names a file that holds it", err)
	case refusal.Code == httpapi.CodeNoSuchPath:
		return fmt.Errorf("--api %s: not the answer of a node: %v; give the node's http.listen", p.api, err)
	case refusal.Condition != "":
		return fmt.Errorf("%w; %s", err, reserve(refusal.Condition, refusal.Missing))
	}
	return err
}

// reserve says why a native's word is not the last.
func reserve(c ports.Condition, missing []ports.PeerID) string {
	switch c {
	case ports.ConditionPartial:
		return "this native is partial: it does not hear " + named(missing) + ", and an indexer that registers there alone may be missing"
	case ports.ConditionWarming:
		return "this native is warming: it has just started, and who is missing may be alive"
	case ports.ConditionUnheard:
		return "this native is unheard: it slept, stood still or lost its line, and who is missing or stale may be alive"
	case ports.ConditionIsolated:
		return "this native is isolated: it has lost all the others, and whoever registers with them is missing"
	}
	return "this native is " + display.Plain(string(c))
}

// named returns the natives ids as text.
func named(ids []ports.PeerID) string {
	if len(ids) == 0 {
		return "some other natives"
	}
	var all []string
	for _, id := range ids {
		all = append(all, display.Plain(string(id)))
	}
	return strings.Join(all, ", ")
}

// node returns a client of the node that cmd asks. The token of the configuration is that
// of the node there, and no other's to get.
func (p *program) node(cmd *cobra.Command) (*httpapi.Client, error) {
	api, file := p.api, cmd.Flags().Lookup(tokenFlag)
	token, err := httpapi.ReadToken(file.Value.String())
	if err != nil {
		return nil, usageError{fmt.Errorf("--%s: %w", tokenFlag, err)}
	}
	if api == "" {
		cfg, err := p.configure(cmd.Flags())
		if err != nil {
			return nil, err
		}
		if api, err = listening(cfg); err != nil {
			return nil, err
		}
		if !file.Changed {
			if token, err = modules.HTTPToken(cfg); err != nil {
				return nil, err
			}
		}
	}
	node, err := httpapi.NewClient(api, token)
	if err != nil {
		return nil, usageError{fmt.Errorf("--api: %w", err)}
	}
	return node, nil
}

// listening returns where the node that is configured here has its HTTP.
func listening(cfg *config.Config) (string, error) {
	listen, err := modules.HTTPListen(cfg)
	if err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(listen)
	switch {
	case listen == "":
		return "", usageError{errors.New("http.listen is empty, so the node has no HTTP to be asked over; name another node with --api")}
	case err != nil:
		return "", err
	case port == "0":
		return "", usageError{errors.New("the node's HTTP listens on a free port; its log's ready line says which: give it with --api")}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// print writes v as JSON, or text.
func (p *program) print(v any, text string) error {
	if p.output != outputJSON {
		return p.write(text)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // it is no web page
	if err := e.Encode(v); err != nil {
		return err
	}
	return p.write(escaped(b.String()))
}

// printLine writes v as one line of JSON.
func (p *program) printLine(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	return p.write(escaped(b.String()))
}

// escaped writes what is no visible character of a JSON text as \u009b: JSON allows the
// second set of controls as they are, and a terminal obeys them.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r == '\n' || strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// write writes to standard output. Where that is a pipe that nobody reads any more, as
// in ocnode ls | head -1, the write ends the process quietly, as it ends every other.
func (p *program) write(text string) error {
	_, err := io.WriteString(p.out, text)
	return err
}
