/**
 * The scripts of `RedisCacheStore`. An entry is a hash: `version`, `generation`, `value` (JSON, absent for `undefined`),
 * `fresh` and `kept` (until when, absent while nothing is loaded), `fence` (the lowest token that may still store),
 * `token` and `until` of a lease. A tag is a sorted set of the entries that have it, by when they leave.
 */

const now = `
local time = redis.call('time')
local now = time[1] * 1000 + time[2] / 1000
local function text(number) return string.format('%.0f', math.floor(number)) end`

/** What somebody else has put under the name is in the way, and as good as nothing. */
const entry = `
local fields = {'version', 'generation', 'value', 'fresh', 'kept', 'fence', 'token', 'until'}
local entry = redis.pcall('hmget', KEYS[1], unpack(fields))
if entry.err then
  redis.call('unlink', KEYS[1])
  entry = {}
end
local version, generation = entry[1], entry[2]
local fresh, kept, fence, leased = tonumber(entry[4] or nil), tonumber(entry[5] or nil), tonumber(entry[6] or nil), tonumber(entry[8] or nil)`

/** An entry is found by its tags for as long as it can be read, or stored under its lease. */
const tag = `
local function tag(until_)
  for i = 3, #KEYS do
    redis.call('zremrangebyscore', KEYS[i], '-inf', '(' .. text(now))
    local known = tonumber(redis.call('zscore', KEYS[i], KEYS[1]) or 0)
    redis.call('zadd', KEYS[i], text(math.max(until_, known)), KEYS[1])
    local last = redis.call('zrange', KEYS[i], -1, -1, 'withscores')
    redis.call('pexpireat', KEYS[i], text(last[2]))
  end
end`

export const scripts = {
  readCacheEntry: `${now}${entry}${tag}
local wanted, refresh, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local current = redis.call('get', KEYS[2])
if not current then
  -- Forgotten generations take their entries with them, for none is given twice.
  current = text(time[1] * 1000000 + time[2])
  if lease > 0 then redis.call('set', KEYS[2], current) end
end
local same = version == wanted and generation == current
local found = same and fresh and kept and kept > now
local freshFor = found and fresh - now or 0
local seen = {found and 1 or 0, found and entry[3] or false, tostring(freshFor), false, 0}
if lease == 0 or (found and freshFor > refresh) then return seen end
if same and leased and leased > now then
  seen[5] = 1
  return seen
end
-- Microseconds grow also after the entry was forgotten; the rest guards against a clock that was set back.
local token = math.max(time[1] * 1000000 + time[2], (fence or 0) + 1, tonumber(entry[7] or 0) + 1)
if not same then redis.call('unlink', KEYS[1]) end
redis.call('hset', KEYS[1], 'version', wanted, 'generation', current, 'token', text(token), 'until', text(now + lease),
  'fence', text(same and fence or token))
local leaves = math.max(found and kept or 0, now + lease)
redis.call('pexpireat', KEYS[1], text(leaves))
tag(leaves)
seen[4] = text(token)
return seen`,

  writeCacheEntry: `${now}${entry}${tag}
local wanted, token, ttl, keep, value = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
if version ~= wanted or not fence or fence > token or generation ~= redis.call('get', KEYS[2]) then return 0 end
redis.call('hdel', KEYS[1], 'token', 'until', 'value')
redis.call('hset', KEYS[1], 'fresh', text(now + ttl), 'kept', text(now + ttl + keep), 'fence', text(token + 1))
if value then redis.call('hset', KEYS[1], 'value', value) end
redis.call('pexpireat', KEYS[1], text(now + ttl + keep))
tag(now + ttl + keep)
return 1`,

  releaseCacheEntry: `
if redis.call('hget', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('hdel', KEYS[1], 'token', 'until')
return 1`,

  invalidateCacheTags: `
local count = 0
for _, tag in ipairs(KEYS) do
  local entries = redis.call('zrange', tag, 0, -1)
  for i = 1, #entries, 1000 do
    count = count + redis.call('unlink', unpack(entries, i, math.min(i + 999, #entries)))
  end
  redis.call('unlink', tag)
end
return count`,

  clearCache: `${now}
local former = tonumber(redis.call('get', KEYS[1]) or 0)
redis.call('set', KEYS[1], text(math.max(time[1] * 1000000 + time[2], former + 1)))
return 1`,
}
