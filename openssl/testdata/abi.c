/*
 * The symbols and constants of libssl and libcrypto that package openssl uses, as C.
 *
 * Go's compiler cannot check the package's calls into C. A C compiler can: it compiles this file
 * with the headers of OpenSSL (cc -fsyntax-only). If a function has another type in the headers, or
 * a constant has another value, the compilation fails. make libssl-matrix compiles this file with
 * the headers of all supported versions. abi_test.go compares this file with the package's table of
 * symbols, its calls and its constants. One line is one check.
 *
 *	FUNCTION(result, name, parameters)
 *	CONSTANT(name in the package, value, name in the headers)
 *
 * The types must be exactly equal. If the type of a function differs between versions, this file
 * has a line for each type, inside #if. "const only" says that the types differ only in const,
 * which does not matter to a call.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* no warnings for deprecated functions */
#include <stdint.h>

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>

#ifdef LIST_ONLY /* cc -E then lists what is checked */
#define FUNCTION(result, name, parameters) ABI_CHECK #name
#define CONSTANT(ours, value, theirs) ABI_CHECK #ours
#else
#define FUNCTION(result, name, parameters) \
	_Static_assert(__builtin_types_compatible_p(__typeof__(&name), result(*) parameters), #name " has another type");
#define CONSTANT(ours, value, theirs) _Static_assert((theirs) == (value), #theirs " has another value");
#endif

#define V3 (OPENSSL_VERSION_NUMBER >= 0x30000000L)
#define V4 (OPENSSL_VERSION_NUMBER >= 0x40000000L)

/* The types of callbacks. abi_test.go compares each with the Go function that its comment names. */

/* SSL_verify_cb: recordVerify */
typedef int verify_cb(int preverify_ok, X509_STORE_CTX *ctx);

/* the callback of SSL_CTX_sess_set_new_cb: keepSession */
typedef int new_session_cb(SSL *ssl, SSL_SESSION *session);

/* SSL_CTX_keylog_cb_func: logSecret */
typedef void keylog_cb(const SSL *ssl, const char *line);

FUNCTION(unsigned long, OpenSSL_version_num, (void))
FUNCTION(const char *, OpenSSL_version, (int))
FUNCTION(int, OPENSSL_init_ssl, (uint64_t, const OPENSSL_INIT_SETTINGS *))

FUNCTION(void, ERR_clear_error, (void))
FUNCTION(unsigned long, ERR_peek_error, (void))
#if V3
FUNCTION(unsigned long, ERR_get_error_all, (const char **, int *, const char **, const char **, int *))
#endif
FUNCTION(unsigned long, ERR_get_error_line_data, (const char **, int *, const char **, int *))
FUNCTION(unsigned long, ERR_get_error, (void))
FUNCTION(const char *, ERR_reason_error_string, (unsigned long))
FUNCTION(const char *, ERR_lib_error_string, (unsigned long))

FUNCTION(const SSL_METHOD *, TLS_client_method, (void))
FUNCTION(const SSL_METHOD *, TLS_server_method, (void))
FUNCTION(SSL_CTX *, SSL_CTX_new, (const SSL_METHOD *))
FUNCTION(void, SSL_CTX_free, (SSL_CTX *))
FUNCTION(int, SSL_CTX_up_ref, (SSL_CTX *))
FUNCTION(long, SSL_CTX_ctrl, (SSL_CTX *, int, long, void *))
#if V3
FUNCTION(uint64_t, SSL_CTX_set_options, (SSL_CTX *, uint64_t))
#else
FUNCTION(unsigned long, SSL_CTX_set_options, (SSL_CTX *, unsigned long))
#endif
FUNCTION(void, SSL_CTX_set_verify, (SSL_CTX *, int, verify_cb *))
FUNCTION(int, SSL_CTX_load_verify_locations, (SSL_CTX *, const char *, const char *))
FUNCTION(X509_STORE *, SSL_CTX_get_cert_store, (const SSL_CTX *))
FUNCTION(X509_VERIFY_PARAM *, SSL_CTX_get0_param, (SSL_CTX *))
FUNCTION(int, SSL_CTX_use_certificate, (SSL_CTX *, X509 *))
FUNCTION(int, SSL_CTX_use_PrivateKey, (SSL_CTX *, EVP_PKEY *))
FUNCTION(int, SSL_CTX_check_private_key, (const SSL_CTX *))
FUNCTION(int, SSL_CTX_set_session_id_context, (SSL_CTX *, const unsigned char *, unsigned int))

FUNCTION(STACK_OF(SSL_CIPHER) *, SSL_CTX_get_ciphers, (const SSL_CTX *))
FUNCTION(int, SSL_CTX_set_cipher_list, (SSL_CTX *, const char *))
FUNCTION(int, OPENSSL_sk_num, (const OPENSSL_STACK *))
FUNCTION(void *, OPENSSL_sk_value, (const OPENSSL_STACK *, int))
FUNCTION(const char *, SSL_CIPHER_get_name, (const SSL_CIPHER *))
FUNCTION(int, SSL_CIPHER_is_aead, (const SSL_CIPHER *))
FUNCTION(int, SSL_CIPHER_get_kx_nid, (const SSL_CIPHER *))

FUNCTION(SSL *, SSL_new, (SSL_CTX *))
FUNCTION(void, SSL_free, (SSL *))
FUNCTION(long, SSL_ctrl, (SSL *, int, long, void *))
FUNCTION(int, SSL_set_rfd, (SSL *, int))
FUNCTION(void, SSL_set0_wbio, (SSL *, BIO *))
FUNCTION(BIO *, SSL_get_rbio, (const SSL *))
FUNCTION(void, SSL_set_connect_state, (SSL *))
FUNCTION(void, SSL_set_accept_state, (SSL *))
FUNCTION(int, SSL_do_handshake, (SSL *))
FUNCTION(int, SSL_read, (SSL *, void *, int))
FUNCTION(int, SSL_write, (SSL *, const void *, int))
FUNCTION(int, SSL_shutdown, (SSL *))
FUNCTION(int, SSL_get_shutdown, (const SSL *))
FUNCTION(int, SSL_in_init, (const SSL *))
FUNCTION(int, SSL_get_error, (const SSL *, int))
FUNCTION(const char *, SSL_get_version, (const SSL *))
#if V3
FUNCTION(X509 *, SSL_get1_peer_certificate, (const SSL *))
#else
FUNCTION(X509 *, SSL_get_peer_certificate, (const SSL *))
#endif
FUNCTION(void, SSL_set_verify, (SSL *, int, verify_cb *))
FUNCTION(long, SSL_get_verify_result, (const SSL *))
FUNCTION(int, SSL_set1_host, (SSL *, const char *))
FUNCTION(void, SSL_set_hostflags, (SSL *, unsigned int))
FUNCTION(X509_VERIFY_PARAM *, SSL_get0_param, (SSL *))
FUNCTION(int, SSL_get_ex_data_X509_STORE_CTX_idx, (void))

FUNCTION(void, SSL_CTX_set_alpn_select_cb, (SSL_CTX *, SSL_CTX_alpn_select_cb_func, void *))
FUNCTION(long, SSL_CTX_callback_ctrl, (SSL_CTX *, int, void (*)(void)))
FUNCTION(int, SSL_CTX_add_client_CA, (SSL_CTX *, X509 *))
FUNCTION(int, SSL_CTX_set_num_tickets, (SSL_CTX *, size_t))
FUNCTION(X509 *, SSL_CTX_get0_certificate, (const SSL_CTX *))
FUNCTION(EVP_PKEY *, SSL_CTX_get0_privatekey, (const SSL_CTX *))
FUNCTION(int, SSL_set_alpn_protos, (SSL *, const unsigned char *, unsigned int))
FUNCTION(void, SSL_get0_alpn_selected, (const SSL *, const unsigned char **, unsigned int *))
FUNCTION(SSL_CTX *, SSL_set_SSL_CTX, (SSL *, SSL_CTX *))
FUNCTION(int, SSL_use_certificate, (SSL *, X509 *))
FUNCTION(int, SSL_use_PrivateKey, (SSL *, EVP_PKEY *))
FUNCTION(const char *, SSL_get_servername, (const SSL *, int))
FUNCTION(const SSL_CIPHER *, SSL_get_current_cipher, (const SSL *))
FUNCTION(int, SSL_session_reused, (const SSL *))
FUNCTION(void, SSL_CTX_sess_set_new_cb, (SSL_CTX *, new_session_cb *))
FUNCTION(void, SSL_CTX_set_keylog_callback, (SSL_CTX *, keylog_cb *))
FUNCTION(int, SSL_set_session, (SSL *, SSL_SESSION *))
FUNCTION(SSL_SESSION *, SSL_get1_session, (SSL *))
FUNCTION(void, SSL_SESSION_free, (SSL_SESSION *))
FUNCTION(int, SSL_SESSION_is_resumable, (const SSL_SESSION *))
FUNCTION(int, SSL_SESSION_get_protocol_version, (const SSL_SESSION *))
#if V3
FUNCTION(const char *, SSL_group_to_name, (SSL *, int))
#endif
FUNCTION(STACK_OF(X509) *, SSL_get_peer_cert_chain, (const SSL *))
FUNCTION(int, SSL_get_verify_mode, (const SSL *))
FUNCTION(int, SSL_export_keying_material, (SSL *, unsigned char *, size_t, const char *, size_t, const unsigned char *, size_t, int))
#if V3 /* const only */
FUNCTION(int, i2d_X509, (const X509 *, unsigned char **))
FUNCTION(int, i2d_X509_PUBKEY, (const X509_PUBKEY *, unsigned char **))
#else
FUNCTION(int, i2d_X509, (X509 *, unsigned char **))
FUNCTION(int, i2d_X509_PUBKEY, (X509_PUBKEY *, unsigned char **))
#endif
#if V4 /* const only */
FUNCTION(const X509_PUBKEY *, X509_get_X509_PUBKEY, (const X509 *))
#else
FUNCTION(X509_PUBKEY *, X509_get_X509_PUBKEY, (const X509 *))
#endif

FUNCTION(int, X509_VERIFY_PARAM_set1_ip_asc, (X509_VERIFY_PARAM *, const char *))
FUNCTION(int, X509_VERIFY_PARAM_set_flags, (X509_VERIFY_PARAM *, unsigned long))
#if V4 /* const only */
FUNCTION(int, X509_STORE_add_cert, (X509_STORE *, const X509 *))
FUNCTION(const X509_NAME *, X509_get_subject_name, (const X509 *))
FUNCTION(const X509_NAME *, X509_get_issuer_name, (const X509 *))
#else
FUNCTION(int, X509_STORE_add_cert, (X509_STORE *, X509 *))
FUNCTION(X509_NAME *, X509_get_subject_name, (const X509 *))
FUNCTION(X509_NAME *, X509_get_issuer_name, (const X509 *))
#endif
#if V3 /* const only */
FUNCTION(void *, X509_STORE_CTX_get_ex_data, (const X509_STORE_CTX *, int))
FUNCTION(int, X509_STORE_CTX_get_error, (const X509_STORE_CTX *))
FUNCTION(int, X509_STORE_CTX_get_error_depth, (const X509_STORE_CTX *))
FUNCTION(X509 *, X509_STORE_CTX_get_current_cert, (const X509_STORE_CTX *))
#else
FUNCTION(void *, X509_STORE_CTX_get_ex_data, (X509_STORE_CTX *, int))
FUNCTION(int, X509_STORE_CTX_get_error, (X509_STORE_CTX *))
FUNCTION(int, X509_STORE_CTX_get_error_depth, (X509_STORE_CTX *))
FUNCTION(X509 *, X509_STORE_CTX_get_current_cert, (X509_STORE_CTX *))
#endif
FUNCTION(void, X509_free, (X509 *))
FUNCTION(char *, X509_NAME_oneline, (const X509_NAME *, char *, int))
FUNCTION(int, X509_check_private_key, (const X509 *, const EVP_PKEY *))
FUNCTION(const char *, X509_verify_cert_error_string, (long))
FUNCTION(const char *, X509_get_default_cert_file, (void))
FUNCTION(const char *, X509_get_default_cert_dir, (void))
FUNCTION(const char *, X509_get_default_cert_file_env, (void))
FUNCTION(const char *, X509_get_default_cert_dir_env, (void))

FUNCTION(BIO *, BIO_new, (const BIO_METHOD *))
FUNCTION(const BIO_METHOD *, BIO_s_mem, (void))
FUNCTION(int, BIO_write, (BIO *, const void *, int))
FUNCTION(int, BIO_nread, (BIO *, char **, int))
FUNCTION(int, BIO_new_bio_pair, (BIO **, size_t, BIO **, size_t))
FUNCTION(long, BIO_ctrl, (BIO *, int, long, void *))
FUNCTION(int, BIO_up_ref, (BIO *))
FUNCTION(int, BIO_free, (BIO *))
FUNCTION(X509 *, PEM_read_bio_X509_AUX, (BIO *, X509 **, pem_password_cb *, void *))
FUNCTION(EVP_PKEY *, PEM_read_bio_PrivateKey, (BIO *, EVP_PKEY **, pem_password_cb *, void *))
FUNCTION(void, EVP_PKEY_free, (EVP_PKEY *))
FUNCTION(void, CRYPTO_free, (void *, const char *, int))

CONSTANT(initNoAtexit, 0x00080000, OPENSSL_INIT_NO_ATEXIT)
CONSTANT(initLoadSSLStrings, 0x00200000, OPENSSL_INIT_LOAD_SSL_STRINGS)
CONSTANT(initLoadCryptoStrings, 0x00000002, OPENSSL_INIT_LOAD_CRYPTO_STRINGS)
CONSTANT(ctrlMode, 33, SSL_CTRL_MODE)
CONSTANT(ctrlSetReadAhead, 41, SSL_CTRL_SET_READ_AHEAD)
CONSTANT(ctrlSessCacheMode, 44, SSL_CTRL_SET_SESS_CACHE_MODE)
CONSTANT(sessCacheOff, 0, SSL_SESS_CACHE_OFF)
CONSTANT(sessCacheClient, 1, SSL_SESS_CACHE_CLIENT)
CONSTANT(sessCacheNoInternal, 0x300, SSL_SESS_CACHE_NO_INTERNAL)
CONSTANT(ctrlSetServernameCB, 53, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB)
CONSTANT(ctrlSetServernameArg, 54, SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG)
CONSTANT(ctrlGetClientCertTypes, 103, SSL_CTRL_GET_CLIENT_CERT_TYPES)
CONSTANT(ctrlGetChainCerts, 115, SSL_CTRL_GET_CHAIN_CERTS)
#if V3
CONSTANT(ctrlGetNegotiatedGroup, 134, SSL_CTRL_GET_NEGOTIATED_GROUP)
#endif
CONSTANT(opNoTicket, 1 << 14, SSL_OP_NO_TICKET)
CONSTANT(verifyFailIfNone, 2, SSL_VERIFY_FAIL_IF_NO_PEER_CERT)
CONSTANT(alpnOK, 0, SSL_TLSEXT_ERR_OK)
CONSTANT(alpnFatal, 2, SSL_TLSEXT_ERR_ALERT_FATAL)
CONSTANT(alpnNone, 3, SSL_TLSEXT_ERR_NOACK)
CONSTANT(ctrlSetHostname, 55, SSL_CTRL_SET_TLSEXT_HOSTNAME)
CONSTANT(ctrlChainCert, 89, SSL_CTRL_CHAIN_CERT)
CONSTANT(ctrlSetMinProto, 123, SSL_CTRL_SET_MIN_PROTO_VERSION)
CONSTANT(ctrlClearMode, 78, SSL_CTRL_CLEAR_MODE)
CONSTANT(ctrlGetMinProto, 130, SSL_CTRL_GET_MIN_PROTO_VERSION)
CONSTANT(hostnameTypeHostname, 0, TLSEXT_NAMETYPE_host_name)
CONSTANT(modePartialWrite, 0x01, SSL_MODE_ENABLE_PARTIAL_WRITE)
CONSTANT(modeMovingBuffer, 0x02, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)
CONSTANT(modeAutoRetry, 0x04, SSL_MODE_AUTO_RETRY)
CONSTANT(modeReleaseBuffer, 0x10, SSL_MODE_RELEASE_BUFFERS)
#if V3 /* the package sets this option only in OpenSSL 3.0 and newer */
CONSTANT(opIgnoreEOF, 1 << 7, SSL_OP_IGNORE_UNEXPECTED_EOF)
#endif
CONSTANT(opNoCompression, 1 << 17, SSL_OP_NO_COMPRESSION)
CONSTANT(opPrioritizeChaCha, 1 << 21, SSL_OP_PRIORITIZE_CHACHA)
CONSTANT(opCipherServerPreference, 1 << 22, SSL_OP_CIPHER_SERVER_PREFERENCE)
CONSTANT(nidKXECDHE, 1038, NID_kx_ecdhe)
CONSTANT(nidKXDHE, 1039, NID_kx_dhe)
CONSTANT(opNoRenegotiation, 1 << 30, SSL_OP_NO_RENEGOTIATION)
CONSTANT(tls12, 0x0303, TLS1_2_VERSION)
CONSTANT(tls13, 0x0304, TLS1_3_VERSION)
CONSTANT(verifyNone, 0, SSL_VERIFY_NONE)
CONSTANT(verifyPeer, 1, SSL_VERIFY_PEER)
CONSTANT(noPartialWildcards, 0x4, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
CONSTANT(neverCheckSubject, 0x20, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT)
CONSTANT(flagPartialChain, 0x80000, X509_V_FLAG_PARTIAL_CHAIN)
CONSTANT(verifyHostMismatch, 62, X509_V_ERR_HOSTNAME_MISMATCH)
CONSTANT(verifyIPMismatch, 64, X509_V_ERR_IP_ADDRESS_MISMATCH)
CONSTANT(receivedShutdown, 2, SSL_RECEIVED_SHUTDOWN)
CONSTANT(bioCtrlEOF, 2, BIO_CTRL_EOF)
CONSTANT(bioCtrlPending, 10, BIO_CTRL_PENDING)
CONSTANT(sslErrorSSL, 1, SSL_ERROR_SSL)
CONSTANT(sslErrorWantRead, 2, SSL_ERROR_WANT_READ)
CONSTANT(sslErrorWantWrite, 3, SSL_ERROR_WANT_WRITE)
CONSTANT(sslErrorSyscall, 5, SSL_ERROR_SYSCALL)
CONSTANT(sslErrorZeroReturn, 6, SSL_ERROR_ZERO_RETURN)
CONSTANT(libSys, 2, ERR_LIB_SYS)
CONSTANT(libSSL, 20, ERR_LIB_SSL)
CONSTANT(txtString, 0x02, ERR_TXT_STRING)
#if V3 /* 1.1.1 has 12 bits for the function and 12 for the reason, below the library's number */
CONSTANT(errSystemFlag, 0x80000000, ERR_SYSTEM_FLAG)
CONSTANT(errLibOffset, 23, ERR_LIB_OFFSET)
CONSTANT(errReasonMask, 0x7fffff, ERR_REASON_MASK)
#else
_Static_assert(ERR_GET_LIB(0x1416F086L) == 0x14 && ERR_GET_REASON(0x1416F086L) == 0x86, "an error code has other fields");
#endif
CONSTANT(reasonHTTPSProxyRequest, 155, SSL_R_HTTPS_PROXY_REQUEST)
CONSTANT(reasonHTTPRequest, 156, SSL_R_HTTP_REQUEST)
CONSTANT(reasonNoSharedCipher, 193, SSL_R_NO_SHARED_CIPHER)
CONSTANT(reasonNullMethod, 196, SSL_R_NULL_SSL_METHOD_PASSED)
CONSTANT(reasonPacketTooLong, 198, SSL_R_PACKET_LENGTH_TOO_LONG)
CONSTANT(reasonUnsupportedProtocol, 258, SSL_R_UNSUPPORTED_PROTOCOL)
CONSTANT(reasonWrongVersionNumber, 267, SSL_R_WRONG_VERSION_NUMBER)
#if V3 /* 1.1.1 reports the end of the stream in another way */
CONSTANT(reasonUnexpectedEOF, 294, SSL_R_UNEXPECTED_EOF_WHILE_READING)
#endif
CONSTANT(reasonShutdownInInit, 407, SSL_R_SHUTDOWN_WHILE_IN_INIT)
CONSTANT(reasonCertVerifyFailed, 134, SSL_R_CERTIFICATE_VERIFY_FAILED)
CONSTANT(reasonBadRecordMAC, 281, SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC)
CONSTANT(reasonAlert, 1000, SSL_AD_REASON_OFFSET)
