package bus

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Fleet returns a name for all that share this bus: taps, workers, ctl. It is
// made of the bucket's, so that every process finds the same without being
// told, and two fleets never have one. A bucket that is made anew is another
// fleet.
func (c *Conn) Fleet(ctx context.Context) (string, error) {
	s, err := c.js.Stream(ctx, bucketStream)
	if err != nil {
		return "", fmt.Errorf("bucket %s: %w", BucketName, err)
	}
	info := s.CachedInfo()
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", info.Config.Name, info.Created.UnixNano()))
	return hex.EncodeToString(sum[:8]), nil
}
