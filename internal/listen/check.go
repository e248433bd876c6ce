package listen

// Check reads the files that the input names, and reports what is wrong with
// them. It opens no socket.
func (in Input) Check() error {
	if in.Scheme != schemeTLS {
		return nil
	}
	_, err := in.TLS.config()
	return err
}
