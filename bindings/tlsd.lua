-- TLS connections of the daemon tlsd, for LuaJIT 2.1. Copy this file.
--
--   local tlsd = require("tlsd")
--   local c = tlsd.connect("example.com", 443, { alpn = "http/1.1" })
--   print(c:info("version"), c:info("subject"))
--   c:write("GET / HTTP/1.0\r\nHost: example.com\r\n\r\n")
--   for part in c:parts() do io.write(part) end
--   c:close()
--
--   local server = tlsd.server("server.crt", "server.key", { alpn = "h2" })
--   local port = server:listen("127.0.0.1", 0)
--   local c = server:accept()
--
-- A call that fails raises an error: a table with the fields kind ("verify"), code (-32007) and
-- text. tlsplugin.h lists the kinds. tostring(e) is the text. To catch an error, use pcall:
--
--   local ok, e = pcall(tlsd.connect, "example.com", 443)
--   if not ok and e.kind == "verify" then … end
--
-- Options have the names of tls_SetOption, with _ in place of -: { min_version = "1.3" }.
-- Times are in seconds. The garbage collector closes connections and servers that are not in use
-- any more. A call blocks its thread until it has a result. For an event loop, poll the descriptor
-- c:fd() or server:fd(): while it is readable, read or accept does not wait.
--
-- TlsPlugin.so is the file that $TLSPLUGIN names, else the one in the working directory, else the
-- installed one.
local ffi = require("ffi")

ffi.cdef [[
int64_t tls_NewClient(const char *host, int32_t port);
int64_t tls_Handshake(int64_t handle);
int64_t tls_Write(int64_t handle, const void *data, size_t len);
int64_t tls_Read(int64_t handle, void *buf, size_t max_bytes);
int64_t tls_Shutdown(int64_t handle);
int64_t tls_Descriptor(int64_t handle);
int64_t tls_ReadPlain(int64_t handle, void *buf, size_t max_bytes);
int64_t tls_WritePlain(int64_t handle, const void *data, size_t len);
int64_t tls_Close(int64_t handle);
int64_t tls_SetInsecureSkipVerify(int64_t handle, int32_t on);
int64_t tls_SetTimeout(int64_t handle, int32_t milliseconds);
int64_t tls_SetOption(int64_t handle, const char *name, const char *value);
int64_t tls_SetCertificate(int64_t handle, const char *name, const char *cert, const char *key);
int64_t tls_NewServerContext(const char *cert_file, const char *key_file);
int64_t tls_Listen(int64_t ctx, const char *host, int32_t port);
int64_t tls_Accept(int64_t ctx, const char *host, int32_t port);
int64_t tls_CloseServerContext(int64_t ctx);
int64_t tls_Info(int64_t handle, const char *name, char *buf, size_t cap);
int64_t tls_LastError(char *buf, size_t cap);
int64_t tls_ErrorKind(char *buf, size_t cap);
int64_t tls_ErrorCode(void);
]]

local function installed()
	for _, folder in ipairs { ".", "/usr/local/lib/tlsd", "/usr/lib/tlsd" } do
		local path = folder .. "/TlsPlugin.so"
		local file = io.open(path)
		if file then return file:close() and path end
	end
	error("TlsPlugin.so: not found; name it in the environment variable TLSPLUGIN", 0)
end

local library = ffi.load(os.getenv("TLSPLUGIN") or installed())
local MOST = 16777216 -- limit of one read or write, in bytes

local Error = { __tostring = function(e) return e.text end }

local function last(get)
	local buf = ffi.new("char[4096]")
	get(buf, 4096)
	return ffi.string(buf)
end

-- Returns the result n of a C function as a number. If n is negative, it raises the error.
local function check(n)
	if n >= 0 then return tonumber(n) end
	local kind, text = last(library.tls_ErrorKind), last(library.tls_LastError)
	error(setmetatable({ kind = kind, code = tonumber(library.tls_ErrorCode()), text = text }, Error), 0)
end

-- Refuses a text with a null character, because C would take it for the end of the text.
local function whole(text)
	if text:find("%z") then error(("%q: embedded null character"):format(text), 0) end
	return text
end

local function info(self, name)
	local size, n = 0, 1023
	while n >= size do -- the fact may have grown since the last call
		size = n + 1
		local buf = ffi.new("char[?]", size)
		n = check(library.tls_Info(self.handle, whole(name or ""), buf, size))
		if n < size then return ffi.string(buf, n) end
	end
end

local function set_options(handle, options)
	local names = {}
	for name in pairs(options or {}) do names[#names + 1] = name end
	table.sort(names) -- client_ca must be set before client_cert
	for _, name in ipairs(names) do
		check(library.tls_SetOption(handle, whole((name:gsub("_", "-"))), whole(options[name])))
	end
end

local function set_timeout(self, s) check(library.tls_SetTimeout(self.handle, math.ceil(s * 1000))) end

-- The descriptor to poll: it is readable when read or accept would not wait. Do not read from it.
local function fd(self) return check(library.tls_Descriptor(self.handle)) end

-- Reads with c_read, which is tls_Read or tls_ReadPlain. Returns "" when the peer has ended its
-- direction.
local function read(c_read, self, most)
	most = math.min(most or 65536, MOST)
	local buf = ffi.new("char[?]", most)
	return ffi.string(buf, check(c_read(self.handle, buf, most)))
end

local function write(c_write, self, data)
	for at = 1, #data, MOST do
		local piece = data:sub(at, at + MOST - 1)
		check(c_write(self.handle, piece, #piece))
	end
end

-- Frees the handle once; a second close does nothing.
local function close(c_close, self)
	if self.closed then return end
	self.closed = true
	check(c_close(self.handle))
end

local Connection = {
	info = info, -- one fact, such as "alpn"; without a name all of them, as JSON
	fd = fd,
	set_timeout = set_timeout, -- for each read, write and handshake; 0: tlsd's own timeouts
	handshake = function(self) check(library.tls_Handshake(self.handle)) end,
	read = function(self, most) return read(library.tls_Read, self, most) end,
	write = function(self, data) write(library.tls_Write, self, data) end,
	-- Plain text before the handshake (STARTTLS).
	read_plain = function(self, most) return read(library.tls_ReadPlain, self, most) end,
	write_plain = function(self, data) write(library.tls_WritePlain, self, data) end,
	shutdown = function(self) check(library.tls_Shutdown(self.handle)) end, -- ends writing
	close = function(self) close(library.tls_Close, self) end,
}

-- An iterator over the data that comes, until the peer ends its direction.
function Connection:parts(most)
	return function()
		local part = self:read(most)
		return part ~= "" and part or nil
	end
end

local Server = {
	info = info,
	fd = fd,
	set_timeout = set_timeout, -- for each accept; 0: tlsd's own timeout
	-- Replaces the certificate for later handshakes. If name is given, replaces only the
	-- certificate of the virtual host of that name.
	set_certificate = function(self, cert, key, name)
		check(library.tls_SetCertificate(self.handle, whole(name or ""), whole(cert), whole(key)))
	end,
	-- Port 0 takes any free port. Returns the port.
	listen = function(self, host, port) return check(library.tls_Listen(self.handle, whole(host), port or 0)) end,
	close = function(self) close(library.tls_CloseServerContext, self) end,
}

local function collected(self) pcall(self.close, self) end -- the garbage collector cannot handle an error
local handle = "struct { int64_t handle; bool closed; }" -- ffi.metatype makes a new type from it at each call
local connection = ffi.metatype(handle, { __index = Connection, __gc = collected })
local server = ffi.metatype(handle, { __index = Server, __gc = collected })

-- Waits for a client on the addresses of listen. Returns its connection.
function Server:accept() return connection(check(library.tls_Accept(self.handle, "", 0))) end

local tlsd = {}

-- Connects and does the handshake. `more` is a table or nil. All its fields are optional:
--   timeout    seconds, as for set_timeout
--   cert, key  the files of the client's own certificate and key
--   insecure   true: do not verify the server's certificate
--   plain      true: the caller will call c:handshake() later (STARTTLS)
function tlsd.connect(host, port, options, more)
	more = more or {}
	local c = connection(check(library.tls_NewClient(whole(host), port)))
	local ok, e = pcall(function()
		set_options(c.handle, options)
		if more.timeout then c:set_timeout(more.timeout) end
		if more.cert then check(library.tls_SetCertificate(c.handle, "", whole(more.cert), whole(more.key))) end
		if more.insecure then check(library.tls_SetInsecureSkipVerify(c.handle, 1)) end
		if not more.plain then c:handshake() end
	end)
	if not ok then
		collected(c)
		error(e, 0)
	end
	return c
end

function tlsd.server(cert, key, options)
	local s = server(check(library.tls_NewServerContext(whole(cert), whole(key))))
	set_options(s.handle, options)
	return s
end

return tlsd
