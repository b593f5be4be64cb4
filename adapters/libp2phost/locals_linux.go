package libp2phost

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// eachAddress calls f with each address of interfaces. It asks the kernel itself: package net
// does not tell which addresses are temporary.
func eachAddress(interfaces []net.Interface, f func(_ net.Interface, _ netip.Addr, passing bool)) error {
	byIndex := make(map[int]net.Interface, len(interfaces))
	for _, i := range interfaces {
		byIndex[i.Index] = i
	}
	table, err := syscall.NetlinkRIB(syscall.RTM_GETADDR, syscall.AF_UNSPEC)
	if err != nil {
		return fmt.Errorf("read the addresses of the interfaces: %w", os.NewSyscallError("netlink", err))
	}
	messages, err := syscall.ParseNetlinkMessage(table)
	if err != nil {
		return fmt.Errorf("read the addresses of the interfaces: %w", os.NewSyscallError("netlink", err))
	}
	for _, m := range messages {
		if m.Header.Type != syscall.RTM_NEWADDR || len(m.Data) < syscall.SizeofIfAddrmsg {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return fmt.Errorf("read the addresses of the interfaces: %w", os.NewSyscallError("netlink", err))
		}
		// As struct ifaddrmsg has them: the low byte of the flags, and the index.
		flags, index := uint32(m.Data[2]), int(binary.NativeEndian.Uint32(m.Data[4:]))
		var ip, local netip.Addr
		for _, a := range attributes {
			switch {
			case a.Attr.Type == unix.IFA_ADDRESS:
				ip, _ = netip.AddrFromSlice(a.Value)
			case a.Attr.Type == unix.IFA_LOCAL: // where IFA_ADDRESS is the other end's
				local, _ = netip.AddrFromSlice(a.Value)
			case a.Attr.Type == unix.IFA_FLAGS && len(a.Value) >= 4:
				flags = binary.NativeEndian.Uint32(a.Value)
			}
		}
		if local.IsValid() {
			ip = local
		}
		i, known := byIndex[index]
		unusable := flags&unix.IFA_F_DADFAILED != 0 || flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
		if !ip.IsValid() || !known || unusable {
			continue
		}
		// Of IPv4 the flag of temporary addresses means another.
		f(i, ip, ip.Is6() && flags&(unix.IFA_F_TEMPORARY|unix.IFA_F_DEPRECATED) != 0)
	}
	return nil
}

// driver returns the name of what drives an interface in the kernel, such as bridge, "" if that is
// not told. Anybody may ask.
func driver(name string) string {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(socket)
	info, err := unix.IoctlGetEthtoolDrvinfo(socket, name)
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.Driver[:])
}
