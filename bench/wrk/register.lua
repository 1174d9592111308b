-- Sends an unchanged registration of each instance in turn.
local instances, apps = tonumber(os.getenv("INSTANCES")), tonumber(os.getenv("APPS"))
local file = io.open(os.getenv("INSTANCE_JSON"))
local template = file:read("*l")
file:close()
local headers = { ["Content-Type"] = "application/json", ["Authorization"] = os.getenv("AUTHORIZATION") }
local i = 0
function request()
  i = (i + 7919) % instances
  local app = string.format("APP%03d", i % apps)
  local values = {
    APP = app,
    VIP = app:lower(),
    ID = string.format("host-%05d:app%03d:8080", i, i % apps),
    HOST = string.format("host-%05d", i),
    IP = string.format("10.%d.%d.%d", math.floor(i / 65536) % 256, math.floor(i / 256) % 256, i % 256),
    DIRTY = "1700000000000",
  }
  return wrk.format("POST", "/eureka/apps/" .. app, headers, (template:gsub("@(%u+)@", values)))
end
