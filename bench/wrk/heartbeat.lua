-- Sends a heartbeat of each instance in turn.
local instances, apps = tonumber(os.getenv("INSTANCES")), tonumber(os.getenv("APPS"))
wrk.headers["Authorization"] = os.getenv("AUTHORIZATION")
local i = 0
function request()
  i = (i + 7919) % instances
  local id = string.format("host-%05d:app%03d:8080", i, i % apps)
  return wrk.format("PUT", string.format("/eureka/apps/APP%03d/%s?status=UP&lastDirtyTimestamp=1700000000000", i % apps, id))
end
