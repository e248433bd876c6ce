package bus

// Recycle forgets the sealed frames of a publisher that does not run, so that
// Offer can be measured alone, with its memory coming back.
func (p *Publisher) Recycle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for f := p.sealed.pop(); f != nil; f = p.sealed.pop() {
		p.forget(f)
	}
}

// Seen returns what the poll has seen last: up to where everything is
// acknowledged, and the oldest frame of the stream.
func (c *Consumer) Seen() (floor, first uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.readers {
		return r.position.floor, r.position.first
	}
	return 0, 0
}
