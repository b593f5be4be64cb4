// Command ocnode runs a node of a peer-to-peer service registry, and asks running
// nodes what they see.
package main

import (
	"github.com/opencloud/ocnode/cmd"
	"github.com/opencloud/ocnode/modules"
)

func main() { cmd.Main(modules.Builtin()) }
