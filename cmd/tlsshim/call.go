package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	"tlsd/rpc/client"
)

// call is the subcommand call: it makes the calls that the words of the command line describe, up
// to the first failure.
func (c *command) call(ctx context.Context, words []string) error {
	input := func() ([]byte, error) { return readInput(ctx, c.stdin) }
	calls, err := parseCalls(words, source{stdin: input})
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		return usageError{err}
	}
	session, _, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer session.Close()
	out := printer{c}
	for _, inv := range calls {
		if err := c.make(ctx, session, inv, out); err != nil {
			return err
		}
	}
	return nil
}

// make carries out one call, and prints the result or the failure. After a failure the error is
// errReported. If the session is lost, the error is errLost, too.
func (c *command) make(ctx context.Context, session *client.Client, inv invocation,
	out printer) error {
	bounded, cancel := c.bounded(ctx)
	defer cancel()
	result, err := inv.make(bounded, session)
	if err == nil {
		return out.result(inv.method, result)
	}
	gaveUp := ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded)
	if err := out.failure(inv.method, err, gaveUp); err != nil {
		return err
	}
	var e *client.Error
	if errors.As(err, &e) && e.Kind == client.KindLost {
		return errors.Join(errReported, errLost)
	}
	return errReported
}

// errLost: no further call of the session can succeed.
var errLost = errors.New("the session is lost")

// make calls the method, and returns the result: a []byte if the method returns a blob, else JSON.
func (inv *invocation) make(ctx context.Context, session *client.Client) (any, error) {
	switch {
	case inv.data != nil:
		n, err := session.Write(ctx, inv.asHandle(), inv.data)
		return json.RawMessage(strconv.Itoa(n)), err
	case inv.blob:
		p := []byte{}
		err := session.Call(ctx, inv.name, inv.args, &p)
		return p, err
	}
	var r json.RawMessage
	var params any // nil, and not an empty array, if there are no arguments
	if len(inv.args) > 0 {
		params = inv.args
	}
	err := session.Call(ctx, inv.name, params, &r)
	return r, err
}

// readInput reads a blob from standard input, up to its end. If ctx ends first, readInput returns.
// A read from a terminal or a pipe cannot be cancelled. So the goroutine that reads is left behind,
// and ends with the process.
func readInput(ctx context.Context, r io.Reader) ([]byte, error) {
	type outcome struct {
		data []byte
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		data, err := readBlob(r)
		done <- outcome{data, err}
	}()
	select {
	case o := <-done:
		return o.data, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
