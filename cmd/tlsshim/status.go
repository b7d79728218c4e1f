package main

import (
	"context"
	"fmt"
	"time"

	"tlsd/rpc/wire"
)

// questionTime is the default of --timeout for status and doctor.
const questionTime = 5 * time.Second

// status is the subcommand status: it prints one line about the daemon that answers.
func (c *command) status(ctx context.Context, _ []string) error {
	if c.timeout == 0 {
		c.timeout = questionTime
	}
	session, path, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	hello, err := session.Hello(ctx)
	if err != nil {
		return err
	}
	info, err := session.Info(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return c.line(struct {
			Socket  string      `json:"socket"`
			Server  wire.Server `json:"server"`
			Backend string      `json:"backend"`
			Library string      `json:"library"`
		}{path, hello.Server, info.Backend, info.Libssl.Version})
	}
	library := info.Libssl.Version
	if library == "" {
		library = "no OpenSSL"
	}
	text := fmt.Sprintf("%s %s at %s, %s: %s", hello.Server.Name, hello.Server.Version, path,
		info.Backend, library)
	return c.write([]byte(clean(text) + "\n"))
}
