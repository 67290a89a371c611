//go:build tools

// Package tools pins etcd's own cross-process tests, which run with our server in etcd's place. They have a go.mod of
// their own: what they drag in is the largest module graph of etcd, and nothing else here needs it.
package tools

import (
	_ "go.etcd.io/etcd/tests/v3/common"
	_ "go.etcd.io/etcd/tests/v3/framework/e2e"
)
