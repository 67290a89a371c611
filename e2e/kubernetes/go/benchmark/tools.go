//go:build tools

// Package tools pins etcd's own load generator. It has a go.mod of its own, because 3.6.8 is the newest that the module
// proxy has of that module and it does not compile against the packages of 3.7.
package tools

import (
	_ "go.etcd.io/etcd/v3/tools/benchmark"
)
