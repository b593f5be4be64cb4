package mdns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	mdnsPort = 5353
	// hops is what RFC 6762 asks for. A multicast of this kind leaves no link anyway.
	hops = 255
	// maxPacketBytes is the largest message over UDP.
	maxPacketBytes = 64 << 10
)

// browse asks once who offers service, and calls heard with the TXT records of each answer until
// ctx ends, an instance at a time. A machine may lack IPv4 or IPv6, or an interface with multicast
// for one of them. (The library's own browse drops an answer without SRV and A records, and all
// TXT records of an instance but one. js-libp2p sends such answers.)
func browse(ctx context.Context, service string, heard func(text []string)) error {
	name := dns.Fqdn(service + "." + domain)
	question, err := new(dns.Msg).SetQuestion(name, dns.TypePTR).Pack()
	if err != nil {
		return err
	}
	packets := make(chan []byte)
	var reading sync.WaitGroup
	defer reading.Wait()
	var errs []error
	families := []func([]net.Interface, []byte) (*net.UDPConn, error){ask4, ask6}
	for _, open := range families {
		conn, err := open(multicastInterfaces(), question)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		defer conn.Close()
		reading.Go(func() { receive(ctx, conn, packets) })
		defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	}
	if len(errs) == len(families) {
		return errors.Join(errs...)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case packet := <-packets:
			for _, text := range instances(packet, name) {
				heard(text)
			}
		}
	}
}

func receive(ctx context.Context, conn *net.UDPConn, packets chan<- []byte) {
	buf := make([]byte, maxPacketBytes)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return // ctx has ended, or the socket is of no use
		}
		select {
		case packets <- append([]byte(nil), buf[:n]...):
		case <-ctx.Done():
			return
		}
	}
}

// instances returns the strings of all TXT records of each instance of a service in an answer. An
// instance that says goodbye, by a time to live of 0, is left out.
func instances(packet []byte, service string) [][]string {
	var msg dns.Msg
	if msg.Unpack(packet) != nil || !msg.Response {
		return nil
	}
	var all [][]string
	places := make(map[string]int)
	for _, section := range [][]dns.RR{msg.Answer, msg.Ns, msg.Extra} {
		for _, record := range section {
			txt, ok := record.(*dns.TXT)
			if !ok || txt.Hdr.Ttl == 0 || !strings.HasSuffix(strings.ToLower(txt.Hdr.Name), "."+service) {
				continue
			}
			place, known := places[txt.Hdr.Name]
			if !known {
				place = len(all)
				places[txt.Hdr.Name] = place
				all = append(all, nil)
			}
			all[place] = append(all[place], txt.Txt...)
		}
	}
	return all
}

func multicastInterfaces() (usable []net.Interface) {
	all, err := net.Interfaces()
	if err != nil {
		return nil
	}
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagMulticast != 0 {
			usable = append(usable, i)
		}
	}
	return usable
}

// ask4 and ask6 send the question over each interface that takes part, and return the socket for
// the answers. Others on this machine may have the port as well: to listen on an address of
// multicast shares it.
func ask4(interfaces []net.Interface, question []byte) (*net.UDPConn, error) {
	group := &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: mdnsPort}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(224, 0, 0, 0), Port: mdnsPort})
	if err != nil {
		return nil, err
	}
	p := ipv4.NewPacketConn(conn)
	_ = p.SetMulticastTTL(hops)
	return conn, overEach(conn, interfaces, func(i *net.Interface) error {
		if err := errors.Join(p.JoinGroup(i, group), p.SetMulticastInterface(i)); err != nil {
			return err
		}
		_, err := p.WriteTo(question, nil, group)
		return err
	})
}

func ask6(interfaces []net.Interface, question []byte) (*net.UDPConn, error) {
	group := &net.UDPAddr{IP: net.ParseIP("ff02::fb"), Port: mdnsPort}
	conn, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.ParseIP("ff02::"), Port: mdnsPort})
	if err != nil {
		return nil, err
	}
	p := ipv6.NewPacketConn(conn)
	_ = p.SetMulticastHopLimit(hops)
	return conn, overEach(conn, interfaces, func(i *net.Interface) error {
		if err := errors.Join(p.JoinGroup(i, group), p.SetMulticastInterface(i)); err != nil {
			return err
		}
		_, err := p.WriteTo(question, nil, group)
		return err
	})
}

// overEach returns nil if ask did what it should on any of the interfaces, and closes conn if not.
func overEach(conn *net.UDPConn, interfaces []net.Interface, ask func(*net.Interface) error) error {
	var errs []error
	for _, i := range interfaces {
		if err := ask(&i); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", i.Name, err))
		}
	}
	if len(errs) < len(interfaces) {
		return nil
	}
	_ = conn.Close()
	return errors.Join(append(errs, errors.New("no interface takes part in multicast"))...)
}
