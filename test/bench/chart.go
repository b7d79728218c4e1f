package main

func (r *results) chartFiles() map[string][]byte { return nil }
