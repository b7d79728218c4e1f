-- cases.lua CASE: runs one case with tlsd.lua, for bindings_test.go. The environment has the ports
-- of the peers, and the paths of certificates and keys.
local tlsd = require("tlsd")
local E = os.getenv
local CA = E("CA")

local function say(...)
	local words = { ... }
	for i, w in ipairs(words) do words[i] = tostring(w) end
	io.write(table.concat(words, " "), "\n")
	io.flush()
end

local function to(peer, options, more)
	options = options or {}
	options.ca = CA
	return tlsd.connect("localhost", tonumber(E(peer)), options, more)
end

local function kind_of(call, ...)
	local ok, e = pcall(call, ...)
	if ok then return "none" end
	assert(type(e) == "table", e)
	assert(e.code < -32000 and e.text ~= "" and tostring(e) == e.text)
	return e.kind
end

local function all(c)
	local parts = {}
	for part in c:parts() do parts[#parts + 1] = part end
	return table.concat(parts)
end

local bytes = {}
for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
local ALL_BYTES = table.concat(bytes)

local cases = {}

function cases.https()
	local c = to("HTTPS")
	c:write("GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
	local answer = all(c)
	c:close()
	say(answer:match("^HTTP/1.0 (%d+)"), answer:match("\r\n\r\n(.*)$"))
end

function cases.facts()
	local c = to("MUTUAL", { alpn = "h2,echo", min_version = "1.3" },
		{ cert = E("CLIENT_CERT"), key = E("CLIENT_KEY"), timeout = 600 })
	io.write(c:read())
	c:write(ALL_BYTES:rep(40))
	local got = ""
	while #got < 256 * 40 do got = got .. c:read(100) end
	say(got == ALL_BYTES:rep(40))
	say(c:info("alpn"), c:info("version"), c:info("subject"), c:info("verified"))
	assert(c:info():find('"alpn":"echo"', 1, true) and #c:info("pem") > 500)
	assert(c:fd() > 2)
	c:shutdown()
	say("[" .. c:read() .. "]")
	c:close()
	c:close()
	say(kind_of(c.info, c))
end

function cases.errors()
	say("no trust:", kind_of(tlsd.connect, "localhost", tonumber(E("ECHO"))))
	local c = tlsd.connect("localhost", tonumber(E("ECHO")), nil, { insecure = true })
	say("unverified:", c:info("verified"))
	c:close()
	say("refused:", kind_of(to, "REFUSED"))
	say("alpn:", kind_of(to, "MUTUAL", { alpn = "h3" }))
	say("option:", kind_of(to, "ECHO", { no_option = "1" }))
	say("zero:", select(2, pcall(tlsd.connect, "localhost\0.example.com", 1)):match("[^:]*$"))
	say("file:", kind_of(tlsd.server, "/missing.crt", "/missing.key"))
	c = to("CUT")
	say("cut:", kind_of(c.read, c))
	c = to("ECHO")
	c:set_timeout(0.05) -- now, and not at connect, because the handshake takes longer
	say("late:", kind_of(c.read, c))
	say("handshake:", kind_of(c.write_plain, c, "x"))
	c:close()
	say("closed:", kind_of(c.read, c))
	for _ = 1, 100 do to("ECHO") end -- the garbage collector must close these
	collectgarbage()
	collectgarbage()
	local open = 0
	for _ in io.popen("ls /proc/" .. io.open("/proc/self/stat"):read("*n") .. "/fd"):lines() do open = open + 1 end
	say("left open:", open < 50)
end

function cases.server()
	local s = tlsd.server(E("CERT"), E("KEY"), { alpn = "echo", client_ca = CA, client_cert = "request" })
	s:set_certificate(E("OTHER_CERT"), E("OTHER_KEY"), "*.example")
	say("port", s:listen("127.0.0.1", 0))
	local served = 0
	while served < 3 do
		local ok, c = pcall(s.accept, s)
		if not ok then
			say("not a client:", c.kind)
		else
			local data = all(c)
			c:write(data)
			say(("[%s] [%s] [%s] %d"):format(c:info("alpn"), c:info("subject"), c:info("server-name"), #data))
			c:close()
			served = served + 1
		end
	end
	s:close()
end

function cases.starttls()
	local c = to("UPGRADE", nil, { plain = true })
	io.write(c:read_plain(100))
	c:write_plain("STARTTLS\n")
	io.write(c:read_plain(100))
	c:handshake()
	say(c:read())
	c:close()
end

cases[arg[1]]()
