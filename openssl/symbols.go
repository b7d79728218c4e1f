package openssl

import (
	"fmt"
	"strings"
)

// This file is the only one that names symbols of libssl and libcrypto. The manual page of each
// name has its signature. Macros of the manual (SSL_CTX_set_mode, SSL_set_tlsext_host_name …) are
// not symbols. They are called through SSL_ctrl or SSL_CTX_ctrl with the constants below.

// symbols are the addresses of the functions that this package calls. The address of an optional
// function is 0 if the library lacks the function.
type symbols struct {
	opensslVersionNum uintptr
	opensslVersion    uintptr
	initSSL           uintptr

	errClear, errPeek, errGetAll, errGetLineData, errGet uintptr
	errReason, errLib                                    uintptr
	errnoLocation                                        uintptr

	tlsClientMethod, tlsServerMethod                  uintptr
	ctxNew, ctxFree, ctxUpRef, ctxCtrl, ctxSetOptions uintptr
	ctxSetVerify, ctxLoadVerifyLocations              uintptr
	ctxGetCertStore, ctxGet0Param                     uintptr
	ctxUseCertificate, ctxUsePrivateKey               uintptr
	ctxCheckPrivateKey, ctxSetSessionIDContext        uintptr
	ctxGetCiphers, ctxSetCipherList                   uintptr
	skNum, skValue                                    uintptr
	cipherName, cipherIsAEAD, cipherKXNid             uintptr

	sslNew, sslFree, sslCtrl, sslSetRfd               uintptr
	sslSet0Wbio, sslGetRbio                           uintptr
	sslSetConnectState, sslSetAcceptState             uintptr
	sslDoHandshake, sslRead, sslWrite, sslShutdown    uintptr
	sslGetShutdown, sslInInit                         uintptr
	sslGetError, sslGetVersion, sslGetPeerCertificate uintptr
	sslSetVerify, sslGetVerifyResult                  uintptr
	sslSet1Host, sslSetHostflags, sslGet0Param        uintptr
	sslExDataIndex                                    uintptr

	// Settings, and the results of a handshake.
	ctxSetALPNSelect, ctxCallbackCtrl, ctxAddClientCA uintptr
	ctxSetNumTickets                                  uintptr
	ctxGet0Certificate, ctxGet0PrivateKey             uintptr
	sslSetALPN, sslGet0ALPN, sslSetCtx                uintptr
	sslUseCertificate, sslUsePrivateKey               uintptr
	sslGetServername, sslCurrentCipher                uintptr
	sslSessionReused, sslGroupName, sslPeerChain      uintptr
	ctxSetNewSession, sslSetSession, sessionFree      uintptr
	sessionIsResumable, sessionVersion                uintptr
	sslGet1Session, ctxSetKeylog                      uintptr
	sslGetVerifyMode, sslExport                       uintptr
	i2dX509, i2dPubkey, x509Pubkey, x509Issuer        uintptr

	paramSet1IPAsc, paramSetFlags                           uintptr
	storeAddCert                                            uintptr
	storeCtxExData, storeCtxError, storeCtxDepth            uintptr
	storeCtxCert                                            uintptr
	x509Free, x509Subject, x509NameOneline                  uintptr
	x509CheckPrivateKey, x509VerifyString                   uintptr
	defaultCertFile, defaultCertDir                         uintptr
	defaultCertFileEnv, defaultCertDirEnv                   uintptr
	bioNew, bioSMem, bioWrite, bioFree                      uintptr
	bioNewPair, bioNread, bioCtrl, bioUpRef                 uintptr
	pemReadX509Aux, pemReadPrivateKey, pkeyFree, cryptoFree uintptr
}

// A symbol is one line of the table.
type symbol struct {
	names    string // alternatives, separated by spaces: the first that exists is taken
	dest     *uintptr
	optional bool
}

// table lists all symbols but those of versionTable. A comment says "since" if the symbol is newer
// than 1.1.1, the oldest accepted version.
func (s *symbols) table() []symbol {
	const optional = true
	return []symbol{
		{"OPENSSL_init_ssl", &s.initSSL, false},

		// The error queue. Since 3.0 there is ERR_get_error_all, and a build may lack the
		// older ERR_get_error_line_data, which is deprecated.
		{"ERR_clear_error", &s.errClear, false},
		{"ERR_peek_error", &s.errPeek, false},
		{"ERR_get_error_all", &s.errGetAll, optional},
		{"ERR_get_error_line_data", &s.errGetLineData, optional},
		{"ERR_get_error", &s.errGet, false},
		{"ERR_reason_error_string", &s.errReason, false},
		{"ERR_lib_error_string", &s.errLib, false},
		// The C library has the first name on Linux, the second on macOS and FreeBSD.
		{"__errno_location __error", &s.errnoLocation, false},

		{"TLS_client_method", &s.tlsClientMethod, false},
		{"TLS_server_method", &s.tlsServerMethod, false},
		{"SSL_CTX_new", &s.ctxNew, false},
		{"SSL_CTX_free", &s.ctxFree, false},
		{"SSL_CTX_up_ref", &s.ctxUpRef, false},
		{"SSL_CTX_ctrl", &s.ctxCtrl, false},
		{"SSL_CTX_set_options", &s.ctxSetOptions, false},
		{"SSL_CTX_set_verify", &s.ctxSetVerify, false},
		{"SSL_CTX_load_verify_locations", &s.ctxLoadVerifyLocations, false},
		{"SSL_CTX_get_cert_store", &s.ctxGetCertStore, false},
		{"SSL_CTX_get0_param", &s.ctxGet0Param, false},
		{"SSL_CTX_use_certificate", &s.ctxUseCertificate, false},
		{"SSL_CTX_use_PrivateKey", &s.ctxUsePrivateKey, false},
		{"SSL_CTX_check_private_key", &s.ctxCheckPrivateKey, false},
		{"SSL_CTX_set_session_id_context", &s.ctxSetSessionIDContext, false},

		{"SSL_CTX_get_ciphers", &s.ctxGetCiphers, false},
		{"SSL_CTX_set_cipher_list", &s.ctxSetCipherList, false},
		{"OPENSSL_sk_num", &s.skNum, false},
		{"OPENSSL_sk_value", &s.skValue, false},
		{"SSL_CIPHER_get_name", &s.cipherName, false},
		{"SSL_CIPHER_is_aead", &s.cipherIsAEAD, false},
		{"SSL_CIPHER_get_kx_nid", &s.cipherKXNid, false},

		{"SSL_new", &s.sslNew, false},
		{"SSL_free", &s.sslFree, false},
		{"SSL_ctrl", &s.sslCtrl, false},
		{"SSL_set_rfd", &s.sslSetRfd, false},
		{"SSL_set0_wbio", &s.sslSet0Wbio, false},
		{"SSL_get_rbio", &s.sslGetRbio, false},
		{"SSL_set_connect_state", &s.sslSetConnectState, false},
		{"SSL_set_accept_state", &s.sslSetAcceptState, false},
		{"SSL_do_handshake", &s.sslDoHandshake, false},
		{"SSL_read", &s.sslRead, false},
		{"SSL_write", &s.sslWrite, false},
		{"SSL_shutdown", &s.sslShutdown, false},
		{"SSL_get_shutdown", &s.sslGetShutdown, false},
		{"SSL_in_init", &s.sslInInit, false},
		{"SSL_get_error", &s.sslGetError, false},
		{"SSL_get_version", &s.sslGetVersion, false},
		// renamed in 3.0
		{"SSL_get1_peer_certificate SSL_get_peer_certificate", &s.sslGetPeerCertificate,
			false},
		{"SSL_set_verify", &s.sslSetVerify, false},
		{"SSL_get_verify_result", &s.sslGetVerifyResult, false},
		{"SSL_set1_host", &s.sslSet1Host, false},
		{"SSL_set_hostflags", &s.sslSetHostflags, false},
		{"SSL_get0_param", &s.sslGet0Param, false},
		{"SSL_get_ex_data_X509_STORE_CTX_idx", &s.sslExDataIndex, false},

		{"SSL_CTX_set_alpn_select_cb", &s.ctxSetALPNSelect, false},
		{"SSL_CTX_callback_ctrl", &s.ctxCallbackCtrl, false},
		{"SSL_CTX_add_client_CA", &s.ctxAddClientCA, false},
		{"SSL_CTX_set_num_tickets", &s.ctxSetNumTickets, false},
		{"SSL_CTX_get0_certificate", &s.ctxGet0Certificate, false},
		{"SSL_CTX_get0_privatekey", &s.ctxGet0PrivateKey, false},
		{"SSL_set_alpn_protos", &s.sslSetALPN, false},
		{"SSL_get0_alpn_selected", &s.sslGet0ALPN, false},
		{"SSL_set_SSL_CTX", &s.sslSetCtx, false},
		{"SSL_use_certificate", &s.sslUseCertificate, false},
		{"SSL_use_PrivateKey", &s.sslUsePrivateKey, false},
		{"SSL_get_servername", &s.sslGetServername, false},
		{"SSL_get_current_cipher", &s.sslCurrentCipher, false},
		{"SSL_session_reused", &s.sslSessionReused, false},
		{"SSL_CTX_sess_set_new_cb", &s.ctxSetNewSession, false},
		{"SSL_CTX_set_keylog_callback", &s.ctxSetKeylog, false},
		{"SSL_set_session", &s.sslSetSession, false},
		{"SSL_get1_session", &s.sslGet1Session, false},
		{"SSL_SESSION_free", &s.sessionFree, false},
		{"SSL_SESSION_is_resumable", &s.sessionIsResumable, false},
		{"SSL_SESSION_get_protocol_version", &s.sessionVersion, false},
		{"SSL_group_to_name", &s.sslGroupName, optional}, // since 3.0
		{"SSL_get_peer_cert_chain", &s.sslPeerChain, false},
		{"SSL_get_verify_mode", &s.sslGetVerifyMode, false},
		{"SSL_export_keying_material", &s.sslExport, false},
		{"i2d_X509", &s.i2dX509, false},
		{"i2d_X509_PUBKEY", &s.i2dPubkey, false},
		{"X509_get_X509_PUBKEY", &s.x509Pubkey, false},
		{"X509_get_issuer_name", &s.x509Issuer, false},

		{"X509_VERIFY_PARAM_set1_ip_asc", &s.paramSet1IPAsc, false},
		{"X509_VERIFY_PARAM_set_flags", &s.paramSetFlags, false},
		{"X509_STORE_add_cert", &s.storeAddCert, false},
		{"X509_STORE_CTX_get_ex_data", &s.storeCtxExData, false},
		{"X509_STORE_CTX_get_error", &s.storeCtxError, false},
		{"X509_STORE_CTX_get_error_depth", &s.storeCtxDepth, false},
		{"X509_STORE_CTX_get_current_cert", &s.storeCtxCert, false},
		{"X509_free", &s.x509Free, false},
		{"X509_get_subject_name", &s.x509Subject, false},
		{"X509_NAME_oneline", &s.x509NameOneline, false},
		{"X509_check_private_key", &s.x509CheckPrivateKey, false},
		{"X509_verify_cert_error_string", &s.x509VerifyString, false},
		{"X509_get_default_cert_file", &s.defaultCertFile, false},
		{"X509_get_default_cert_dir", &s.defaultCertDir, false},
		{"X509_get_default_cert_file_env", &s.defaultCertFileEnv, false},
		{"X509_get_default_cert_dir_env", &s.defaultCertDirEnv, false},

		{"BIO_new", &s.bioNew, false},
		{"BIO_s_mem", &s.bioSMem, false},
		{"BIO_write", &s.bioWrite, false},
		{"BIO_ctrl", &s.bioCtrl, false},
		{"BIO_up_ref", &s.bioUpRef, false},
		{"BIO_free", &s.bioFree, false},
		{"BIO_new_bio_pair", &s.bioNewPair, false},
		{"BIO_nread", &s.bioNread, false},
		{"PEM_read_bio_X509_AUX", &s.pemReadX509Aux, false},
		{"PEM_read_bio_PrivateKey", &s.pemReadPrivateKey, false},
		{"EVP_PKEY_free", &s.pkeyFree, false},
		{"CRYPTO_free", &s.cryptoFree, false},
	}
}

// versionTable has the symbols that are looked up first. If the version is refused, the others are
// not looked up.
func (s *symbols) versionTable() []symbol {
	return []symbol{
		{"OpenSSL_version_num", &s.opensslVersionNum, false},
		{"OpenSSL_version", &s.opensslVersion, false},
	}
}

// resolve looks up the symbols of a table, and stores their addresses. The error names all missing
// symbols.
func resolve(table []symbol, lookup func(name string) uintptr) error {
	var missing []string
	for _, sym := range table {
		for name := range strings.FieldsSeq(sym.names) {
			if *sym.dest = lookup(name); *sym.dest != 0 {
				break
			}
		}
		if *sym.dest == 0 && !sym.optional {
			missing = append(missing, strings.ReplaceAll(sym.names, " ", " or "))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("symbols are missing: %s", strings.Join(missing, ", "))
	}
	return nil
}

// Constants of ssl.h, tls1.h, bio.h, x509_vfy.h, crypto.h, err.h and sslerr.h. They are part of the
// ABI. They are the same in 1.1.1, 3.x and 4.x, unless a comment names a version.
const (
	// OPENSSL_INIT_NO_ATEXIT, since 1.1.1b; older releases ignore it
	initNoAtexit          = 0x00080000
	initLoadSSLStrings    = 0x00200000
	initLoadCryptoStrings = 0x00000002

	ctrlMode               = 33  // SSL_CTRL_MODE
	ctrlSetReadAhead       = 41  // SSL_CTRL_SET_READ_AHEAD
	ctrlSessCacheMode      = 44  // SSL_CTRL_SET_SESS_CACHE_MODE
	ctrlSetServernameCB    = 53  // SSL_CTRL_SET_TLSEXT_SERVERNAME_CB
	ctrlSetServernameArg   = 54  // SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG
	ctrlGetClientCertTypes = 103 // SSL_CTRL_GET_CLIENT_CERT_TYPES
	ctrlGetChainCerts      = 115 // SSL_CTRL_GET_CHAIN_CERTS
	ctrlGetNegotiatedGroup = 134 // SSL_CTRL_GET_NEGOTIATED_GROUP, since 3.0
	ctrlSetHostname        = 55  // SSL_CTRL_SET_TLSEXT_HOSTNAME
	ctrlChainCert          = 89  // SSL_CTRL_CHAIN_CERT
	ctrlSetMinProto        = 123 // SSL_CTRL_SET_MIN_PROTO_VERSION
	ctrlGetMinProto        = 130 // SSL_CTRL_GET_MIN_PROTO_VERSION
	hostnameTypeHostname   = 0   // TLSEXT_NAMETYPE_host_name
	ctrlClearMode          = 78  // SSL_CTRL_CLEAR_MODE

	modePartialWrite  = 0x01 // SSL_MODE_ENABLE_PARTIAL_WRITE
	modeMovingBuffer  = 0x02 // SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
	modeAutoRetry     = 0x04 // SSL_MODE_AUTO_RETRY
	modeReleaseBuffer = 0x10 // SSL_MODE_RELEASE_BUFFERS

	// SSL_OP_IGNORE_UNEXPECTED_EOF, since 3.0. In 1.1.1 the bit is another option.
	opIgnoreEOF              = 1 << 7
	opNoTicket               = 1 << 14 // SSL_OP_NO_TICKET
	opNoCompression          = 1 << 17 // SSL_OP_NO_COMPRESSION
	opPrioritizeChaCha       = 1 << 21 // SSL_OP_PRIORITIZE_CHACHA
	opCipherServerPreference = 1 << 22 // SSL_OP_CIPHER_SERVER_PREFERENCE
	opNoRenegotiation        = 1 << 30 // SSL_OP_NO_RENEGOTIATION

	nidKXECDHE = 1038 // NID_kx_ecdhe
	nidKXDHE   = 1039 // NID_kx_dhe

	tls12 = 0x0303 // TLS1_2_VERSION
	tls13 = 0x0304 // TLS1_3_VERSION

	alpnOK    = 0 // SSL_TLSEXT_ERR_OK
	alpnFatal = 2 // SSL_TLSEXT_ERR_ALERT_FATAL
	alpnNone  = 3 // SSL_TLSEXT_ERR_NOACK

	verifyNone       = 0 // SSL_VERIFY_NONE
	verifyPeer       = 1 // SSL_VERIFY_PEER
	verifyFailIfNone = 2 // SSL_VERIFY_FAIL_IF_NO_PEER_CERT

	sessCacheOff        = 0     // SSL_SESS_CACHE_OFF
	sessCacheClient     = 1     // SSL_SESS_CACHE_CLIENT
	sessCacheNoInternal = 0x300 // SSL_SESS_CACHE_NO_INTERNAL

	noPartialWildcards = 0x4     // X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
	neverCheckSubject  = 0x20    // X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
	flagPartialChain   = 0x80000 // X509_V_FLAG_PARTIAL_CHAIN

	verifyHostMismatch = 62 // X509_V_ERR_HOSTNAME_MISMATCH
	verifyIPMismatch   = 64 // X509_V_ERR_IP_ADDRESS_MISMATCH

	receivedShutdown = 2 // SSL_RECEIVED_SHUTDOWN

	bioCtrlEOF     = 2  // BIO_CTRL_EOF
	bioCtrlPending = 10 // BIO_CTRL_PENDING

	sslErrorSSL        = 1
	sslErrorWantRead   = 2
	sslErrorWantWrite  = 3
	sslErrorSyscall    = 5
	sslErrorZeroReturn = 6

	libSys        = 2          // ERR_LIB_SYS
	libSSL        = 20         // ERR_LIB_SSL
	txtString     = 0x02       // ERR_TXT_STRING
	errSystemFlag = 0x80000000 // ERR_SYSTEM_FLAG, since 3.0
	errLibOffset  = 23         // ERR_LIB_OFFSET, of 3.0 and later
	errReasonMask = 0x7fffff   // ERR_REASON_MASK, of 3.0 and later

	reasonHTTPSProxyRequest   = 155
	reasonHTTPRequest         = 156
	reasonNoSharedCipher      = 193
	reasonNullMethod          = 196
	reasonPacketTooLong       = 198
	reasonUnsupportedProtocol = 258
	reasonWrongVersionNumber  = 267
	reasonUnexpectedEOF       = 294
	reasonShutdownInInit      = 407
	reasonCertVerifyFailed    = 134
	reasonBadRecordMAC        = 281
	reasonAlert               = 1000 // SSL_AD_REASON_OFFSET: 1000 + the alert's number
)
