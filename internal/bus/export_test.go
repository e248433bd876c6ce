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
