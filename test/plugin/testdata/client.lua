-- client.lua PLUGIN HOST PORT CA: a client in LuaJIT, by ffi. realtlsd_test.go runs it.

local ffi = require("ffi")
ffi.cdef[[
int64_t tls_NewClient(const char *host, int32_t port);
int64_t tls_Handshake(int64_t handle);
int64_t tls_Write(int64_t handle, const void *data, size_t len);
int64_t tls_Read(int64_t handle, void *buf, size_t max_bytes);
int64_t tls_Close(int64_t handle);
int64_t tls_SetCaBundle(const char *path);
int64_t tls_PeerCertSubject(int64_t handle, char *buf, size_t cap);
int64_t tls_Backend(char *buf, size_t cap);
int64_t tls_Version(int64_t handle, char *buf, size_t cap);
int64_t tls_LastError(char *buf, size_t cap);
]]
local tls = ffi.load(arg[1])

local function last_error()
	local n = tonumber(tls.tls_LastError(nil, 0))
	local buf = ffi.new("char[?]", n + 1)
	tls.tls_LastError(buf, n + 1)
	return ffi.string(buf)
end

local function check(n)
	n = tonumber(n)
	if n < 0 then error(last_error(), 0) end
	return n
end

local function text(get, ...)
	local args = { ... }
	local function call(buf, cap)
		if #args == 1 then return check(get(args[1], buf, cap)) end
		return check(get(buf, cap))
	end
	local n = call(nil, 0)
	local buf = ffi.new("char[?]", n + 1)
	call(buf, n + 1)
	return ffi.string(buf)
end

print("backend " .. text(tls.tls_Backend))
check(tls.tls_SetCaBundle(arg[4]))
local h = check(tls.tls_NewClient(arg[2], tonumber(arg[3])))
check(tls.tls_Handshake(h))
print("peer " .. text(tls.tls_PeerCertSubject, h) .. " " .. text(tls.tls_Version, h))

local bytes = {}
for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
local data = table.concat(bytes):rep(1000)
check(tls.tls_Write(h, data, #data))
local buf, got, size = ffi.new("char[65536]"), {}, 0
while size < #data do
	local n = check(tls.tls_Read(h, buf, 65536))
	if n == 0 then error("end of data") end
	got[#got + 1] = ffi.string(buf, n)
	size = size + n
end
print("echo " .. (table.concat(got) == data and "True" or "False"))
check(tls.tls_Close(h))
local ok, message = pcall(function() check(tls.tls_Read(h, buf, 1)) end)
if not ok then print("then " .. message) end
