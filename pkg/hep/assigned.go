package hep

// Vendors of chunks. Those between VendorFreeSWITCH and VendorGenesys are the
// specification's; in the field nearly every chunk is VendorGeneric.
const (
	VendorGeneric    = 0
	VendorFreeSWITCH = 1
	VendorKamailio   = 2
	VendorOpenSIPS   = 3
	VendorAsterisk   = 4
	VendorHomer      = 5
	VendorSipXecs    = 6
	VendorYeti       = 7
	VendorGenesys    = 8
	VendorSiptrace   = 0x5354
)

// Types of generic chunks, as of revision 37 of the specification.
const (
	ChunkFamily            = 0x01 // uint8
	ChunkProtocol          = 0x02 // uint8
	ChunkSrc4              = 0x03 // 4 bytes
	ChunkDst4              = 0x04 // 4 bytes
	ChunkSrc6              = 0x05 // 16 bytes
	ChunkDst6              = 0x06 // 16 bytes
	ChunkSrcPort           = 0x07 // uint16
	ChunkDstPort           = 0x08 // uint16
	ChunkSec               = 0x09 // uint32
	ChunkUsec              = 0x0a // uint32
	ChunkType              = 0x0b // uint8
	ChunkCaptureID         = 0x0c // uint32
	ChunkKeepAlive         = 0x0d // uint16, seconds
	ChunkAuthKey           = 0x0e // bytes
	ChunkPayload           = 0x0f // bytes
	ChunkCompressedPayload = 0x10 // bytes
	ChunkCorrelationID     = 0x11 // bytes
	ChunkVLAN              = 0x12 // uint16; uint8 until revision 18
	ChunkNode              = 0x13 // bytes
	ChunkSrcMAC            = 0x14 // uint64; 6 bytes seen
	ChunkDstMAC            = 0x15 // uint64; 6 bytes seen
	ChunkEthertype         = 0x16 // uint16
	ChunkTCPFlags          = 0x17 // uint8; uint16 in revisions 22 and 23
	ChunkTOS               = 0x18 // uint8
	ChunkMOS               = 0x20 // uint16, in practice MOS times 100
	ChunkRFactor           = 0x21 // uint16
	ChunkGeoLocation       = 0x22 // bytes
	ChunkJitter            = 0x23 // uint32
	ChunkTransactionType   = 0x24 // bytes
	ChunkJSONKeys          = 0x25 // bytes
	ChunkTagValues         = 0x26 // bytes
	ChunkTagType           = 0x27 // uint16
	ChunkEventType         = 0x28 // uint16
	ChunkGroupID           = 0x29 // bytes
	ChunkCorrelationIDs    = 0x65 // bytes; OpenSIPS, outside the specification
)

// Types of chunks with VendorGenesys, all of them strings.
const (
	GenesysConversationID = 0x80
	GenesysOrganizationID = 0x81
	GenesysSiteID         = 0x82
	GenesysTrunkBaseID    = 0x83
	GenesysEdgeID         = 0x84
)

// Protocol types: what a payload is. The first block is the specification's.
const (
	TypeReserved   = 0
	TypeSIP        = 1
	TypeXMPP       = 2
	TypeSDP        = 3
	TypeRTP        = 4
	TypeRTCP       = 5 // JSON
	TypeMGCP       = 6
	TypeMEGACO     = 7
	TypeM2UA       = 8
	TypeM3UA       = 9
	TypeIAX        = 10
	TypeH322       = 11
	TypeH321       = 12
	TypeM2PA       = 13
	TypeMOSFull    = 34 // JSON
	TypeMOSShort   = 35 // JSON
	TypeSIPJSON    = 50
	TypeDNS        = 53 // JSON
	TypeISUP       = 54 // JSON
	TypeRTSP       = 55 // JSON
	TypeDiameter   = 56 // JSON
	TypeGSMMAP     = 57 // JSON
	TypeRTCPPION   = 58
	TypeCDR        = 60
	TypeVerto      = 61 // JSON
	TypeWebRTC     = 20 // JSON; this and the rest are in use outside the specification
	TypeQoSReport  = 32
	TypeRTPAgent   = 36
	TypeHoraclifix = 38
	TypeNG         = 61 // rtpengine; the number is also TypeVerto
	TypeMI         = 87
	TypeREST       = 88
	TypeNet        = 89
	TypeControl    = 96
	TypeQoS        = 99
	TypeLog        = 100
	TypeEvent      = 101
)

// Address families as sent. A sender writes its own operating system's AF_INET6.
const (
	FamilyINET         = 2
	FamilyINET6        = 10 // Linux, and what this package writes
	FamilyINET6Windows = 23
	FamilyINET6OpenBSD = 24 // and NetBSD
	FamilyINET6Solaris = 26
	FamilyINET6FreeBSD = 28
	FamilyINET6Darwin  = 30
)

// IP protocols as sent. Agents borrow two numbers for what IP has none for.
const (
	ProtocolTCP  = 6
	ProtocolUDP  = 17
	ProtocolIDP  = 22 // borrowed for TLS, WS and WSS
	ProtocolESP  = 50 // borrowed by OpenSIPS for WS
	ProtocolSCTP = 132
)

// isINET6 reports whether family is AF_INET6 on any system.
func isINET6(family uint8) bool {
	switch family {
	case FamilyINET6, FamilyINET6Windows, FamilyINET6OpenBSD, FamilyINET6Solaris, FamilyINET6FreeBSD, FamilyINET6Darwin:
		return true
	}
	return false
}
