// Package deploytools checks what deploy/ has, without a container engine, systemd or a
// cluster: each file by the library that its own tools are made of, and then by what it
// asks of the binary, which runs as processes on loopback.
package deploytools
