-- chat.lua CERT KEY COUNT PATIENCE - a chat server for many clients, in one thread with poll(2).
--
-- The server sends each client's text to all clients. It closes a client that does not take 64 KiB
-- within PATIENCE milliseconds. The server ends when COUNT clients have left or were closed.
local ffi = require("ffi")
local tlsd = require("tlsd")

ffi.cdef [[
struct pollfd { int fd; short events, revents; };
int poll(struct pollfd *fds, unsigned long n, int milliseconds);
]]
local POLLIN = 1

local cert, key, count, patience = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
io.stdout:setvbuf("line")

local server = tlsd.server(cert, key, { failed_handshakes = "skip" })
print("port " .. server:listen("127.0.0.1", 0))

local clients = {} -- by descriptor
local left = 0 -- the number of clients that have left or were closed

local function drop(fd, why)
	print(("%d %s"):format(fd, why))
	pcall(clients[fd].close, clients[fd]) -- fails if a write has failed
	clients[fd] = nil
	left = left + 1
end

local function come()
	local ok, c = pcall(server.accept, server)
	if not ok then return end
	c:set_timeout(patience / 1000)
	clients[c:fd()] = c
	print(c:fd() .. " has come")
end

local function hear(fd)
	local ok, said = pcall(clients[fd].read, clients[fd], 4096)
	if not ok then return drop(fd, "is gone: " .. said.text) end
	if said == "" then return drop(fd, "has left") end
	for to, c in pairs(clients) do
		local ok, e = pcall(c.write, c, said)
		if not ok then drop(to, "is gone: " .. e.text) end
	end
end

while left < count do
	local fds = { server:fd() }
	for fd in pairs(clients) do fds[#fds + 1] = fd end
	local polled = ffi.new("struct pollfd[?]", #fds)
	for i, fd in ipairs(fds) do polled[i - 1] = { fd, POLLIN, 0 } end
	assert(ffi.C.poll(polled, #fds, -1) > 0)
	for i = 2, #fds do
		if polled[i - 1].revents ~= 0 and clients[fds[i]] then hear(fds[i]) end
	end
	if polled[0].revents ~= 0 then come() end
end
server:close()
