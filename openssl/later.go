package openssl

import "context"

func (c *Conn) CloseWrite(context.Context) error { return nil }

func (c *Conn) WaitReset(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func (c *Conn) SetTag(int32) {}
