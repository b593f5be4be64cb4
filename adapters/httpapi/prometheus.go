package httpapi

import (
	"bytes"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencloud/ocnode/ports"
)

const (
	// scrapeKey is the name of the metadata that says where an indexer is to be scraped.
	scrapeKey = "prometheus"
	// labelPrefix begins the labels; Prometheus drops __meta_ ones after relabelling.
	labelPrefix = "__meta_ocnode_"
	// maxHostBytes is the longest name that DNS has.
	maxHostBytes = 253
)

// targetGroup is what Prometheus reads a list of.
type targetGroup struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// prometheus writes the whole table, a page at a time, so that it costs the memory of
// a page however long it is.
func (n Node) prometheus(w http.ResponseWriter, r *http.Request) {
	values, err := parameters(r.URL.RawQuery, metaPrefix)
	if err != nil {
		fail(w, http.StatusBadRequest, CodeBadRequest, "%v", err)
		return
	}
	q := ports.Query{Limit: ports.MaxPage}
	if q.Meta, err = filter(values); err != nil {
		fail(w, http.StatusBadRequest, CodeBadRequest, "%v", err)
		return
	}
	var page ports.Page
	var out targetList
	next := func() {
		if page, err = n.Directory.List(r.Context(), n.PeerID, q); err == nil {
			out.add(page)
		}
	}
	if !n.turns.Try(r.Context(), next) {
		noTurn(w)
		return
	}
	switch {
	case err != nil:
		failWith(w, err)
		return
	case page.Condition == ports.ConditionWarming:
		fail(w, http.StatusServiceUnavailable, CodeWarming,
			"this native has just started and does not yet hold what the others do; keep the list that you have")
		return
	case page.Condition == ports.ConditionUnheard:
		fail(w, http.StatusServiceUnavailable, CodeUnheard,
			"this native has not heard its indexers for a while and cannot tell which of them live; keep the list that you have")
		return
	}

	w.Header().Set("Content-Type", "application/json")
	conn := http.NewResponseController(w)
	for page.Next != "" {
		if _, err := out.WriteTo(w); err != nil {
			return // the reader has gone
		}
		q.After = page.Next
		// Half a list would have Prometheus forget the other half: it is cut, and Prometheus
		// keeps what it had. Each page has the time that any other answer has.
		if !n.turns.Do(r.Context(), next) || err != nil || page.Condition == ports.ConditionUnheard {
			panic(http.ErrAbortHandler)
		}
		_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // of a connection that has gone, WriteTo tells
	}
	out.end()
	_, _ = out.WriteTo(w) // an error says that the reader has gone
}

// targetList is a list of targets as it is written, a page at a time.
type targetList struct {
	bytes.Buffer
	begun bool
}

func (out *targetList) add(page ports.Page) {
	for _, l := range page.Entries {
		group, ok := targetOf(l)
		if !ok {
			continue
		}
		text, err := json.Marshal(group)
		if err != nil {
			panic(err) // strings always encode
		}
		out.begin(',')
		out.Write(text)
	}
}

// begin writes the first byte of the list, and else separator.
func (out *targetList) begin(separator ...byte) {
	if !out.begun {
		separator = []byte{'['}
	}
	out.begun = true
	out.Write(separator)
}

func (out *targetList) end() {
	out.begin()
	out.WriteString("]\n")
}

// targetOf returns the target that l is to Prometheus, if it is one.
func targetOf(l ports.Listed) (targetGroup, bool) {
	addrs := l.Addrs
	if len(addrs) == 0 {
		addrs = []string{l.Addr}
	}
	var host, port string
	for _, addr := range addrs {
		if host, port = dialable(addr); host != "" {
			break
		}
	}
	says := false
	if said, ok := l.Meta[scrapeKey]; ok {
		host, port, says = scraped(said, host, port)
	}
	if host == "" {
		return targetGroup{}, false
	}
	labels := map[string]string{
		labelPrefix + "peer_id": string(l.PeerID),
		labelPrefix + "state":   string(l.State),
		labelPrefix + "source":  string(l.Source),
		labelPrefix + "native":  string(l.Native),
		labelPrefix + "addr":    l.Addr,
	}
	for _, name := range slices.Sorted(maps.Keys(l.Meta)) {
		if name == scrapeKey && !says {
			continue // nor is it kept by a rule that asks whether it is said
		}
		safe := sanitized(name)
		label := labelPrefix + "meta_" + safe
		if _, taken := labels[label]; !taken || safe == name {
			labels[label] = l.Meta[name]
		}
	}
	return targetGroup{Targets: []string{net.JoinHostPort(host, port)}, Labels: labels}, true
}

// dialable returns the host and the port of a multiaddr that names the indexer's own, ""
// of any other.
func dialable(addr string) (host, port string) {
	parts := strings.Split(addr, "/")
	if len(parts) < 5 || parts[0] != "" || slices.Contains(parts, "p2p-circuit") {
		return "", ""
	}
	network, host, transport, port := parts[1], parts[2], parts[3], parts[4]
	ip, err := netip.ParseAddr(host)
	isIP := err == nil && ip.Zone() == ""
	fits := false
	switch network {
	case "ip4":
		fits = isIP && ip.Is4()
	case "ip6":
		fits = isIP && ip.Is6()
	case "dns", "dns4", "dns6":
		fits = isName(host)
	}
	if !fits || transport != "tcp" && transport != "udp" || !isPort(port) {
		return "", ""
	}
	return host, port
}

// scraped returns what an indexer says of where it is to be scraped: host:port, or a
// port of host. Nonsense counts as not said.
func scraped(said, host, port string) (_, _ string, says bool) {
	own, ownPort, err := net.SplitHostPort(said)
	if err != nil {
		own, ownPort = "", said
	}
	if ip, err := netip.ParseAddr(own); own != "" && !isName(own) && (err != nil || ip.Zone() != "") || !isPort(ownPort) {
		return host, port, false
	}
	if own == "" {
		own = host
	}
	return own, ownPort, true
}

func isName(s string) bool {
	return s != "" && len(s) <= maxHostBytes && strings.Trim(s, ".") != "" && sanitizedBut(s, ".-") == s
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// sanitized makes a name a part of a label's.
func sanitized(name string) string { return sanitizedBut(name, "") }

// sanitizedBut replaces by _ each rune that is no ASCII letter, digit, _ or in but.
func sanitizedBut(s, but string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', strings.ContainsRune(but, r):
			return r
		}
		return '_'
	}, s)
}
