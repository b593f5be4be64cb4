package mdns

import (
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// jsAnswer is the answer of js-libp2p's @libp2p/mdns: a PTR record, a TXT record for each address,
// and neither SRV nor A.
func jsAnswer(t testing.TB, service string, ttl uint32, addrs ...string) []byte {
	t.Helper()
	const instance = "jRxsDMkEGyUSCPpEfwcwYcwSFHHt"
	name := instance + "." + service + "."
	msg := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}}
	msg.Answer = append(msg.Answer, &dns.PTR{Hdr: dns.RR_Header{Name: service + ".", Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl}, Ptr: name})
	for _, addr := range addrs {
		msg.Answer = append(msg.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: ttl}, Txt: []string{dnsaddr + addr}})
	}
	packet, err := msg.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

func TestWhatAnAnswerTells(t *testing.T) {
	const service = "_ocnode-2c4c9f8d._udp.local"
	txt := func(name string, text ...string) dns.RR {
		return &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 120}, Txt: text}
	}
	packed := func(msg *dns.Msg) []byte {
		packet, err := msg.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return packet
	}
	a := txt("x."+service+".", "a", "b")
	for name, tt := range map[string]struct {
		packet []byte
		want   [][]string
	}{
		"a TXT record for each address": {jsAnswer(t, service, 120, "1", "2"), [][]string{{"dnsaddr=1", "dnsaddr=2"}}},
		"all in one TXT record":         {packed(&dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Answer: []dns.RR{a}}), [][]string{{"a", "b"}}},
		"beside the answer":             {packed(&dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Extra: []dns.RR{a}}), [][]string{{"a", "b"}}},
		"with SRV and A records": {packed(&dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Answer: []dns.RR{
			&dns.SRV{Hdr: dns.RR_Header{Name: "x." + service + ".", Rrtype: dns.TypeSRV, Class: dns.ClassINET, Ttl: 120}, Target: "h.local.", Port: 1},
			&dns.A{Hdr: dns.RR_Header{Name: "h.local.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 120}, A: net.IPv4(192, 0, 2, 1)}, a,
		}}), [][]string{{"a", "b"}}},
		"two instances":          {packed(&dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Answer: []dns.RR{a, txt("y."+service+".", "c")}}), [][]string{{"a", "b"}, {"c"}}},
		"in capitals":            {packed(&dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Answer: []dns.RR{txt("x."+strings.ToUpper(service)+".", "a")}}), [][]string{{"a"}}},
		"a goodbye":              {jsAnswer(t, service, 0, "1"), nil},
		"another network's":      {jsAnswer(t, "_ocnode-00000000._udp.local", 120, "1"), nil},
		"a name that ends alike": {packed(&dns.Msg{MsgHdr: dns.MsgHdr{Response: true}, Answer: []dns.RR{txt("x"+service+".", "a")}}), nil},
		"a question":             {packed(&dns.Msg{Answer: []dns.RR{a}}), nil},
		"no DNS":                 {[]byte("who is there?"), nil},
		"nothing":                {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := instances(tt.packet, service+"."); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzInstances(f *testing.F) {
	f.Add(jsAnswer(f, "_ocnode-2c4c9f8d._udp.local", 120, "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		for _, text := range instances(packet, "_ocnode-2c4c9f8d._udp.local.") {
			if len(text) == 0 {
				t.Error("an instance without a text")
			}
		}
	})
}
