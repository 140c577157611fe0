/**
 * Rate limits in Redis. A decision is one script, so it is atomic; Redis's own clock decides, and keys leave by its own
 * expiry. What Redis loses in a crash (see its `appendfsync`) begins with nothing counted.
 */
import type { RateLimitAnswer, RateLimitQuestion, RateLimitStore } from './rateLimitStore.ts'
import {
  answer,
  decidingTogether,
  RateLimitBatch,
  requireBlock,
  requireKey,
  requireQuestion,
  termNumbers,
  type Terms,
} from './rateLimitWire.ts'
import { RedisConnection } from './redisConnection.ts'

export interface RedisRateLimitOptions {
  /** `redis://` or `rediss://` (TLS). */
  url: string
  /** Before every key. @default 'holdfast:limit:' */
  prefix?: string
  /** Longest a command may take, and a connection to open. @default 2_000 */
  timeoutMs?: number
}

/**
 * A key holds when it is blocked until, if it was, and the states of its windows. The numbers are those of rateLimitWire.ts, the
 * formulas those of rateLimitDecide.ts. Gives the time, the calls admitted, the microseconds it is still blocked for,
 * and the states.
 */
export const decideScript = `
local max, min, floor, ceil, format = math.max, math.min, math.floor, math.ceil, string.format
local call = redis.call
local time = call('time')
local now = time[1] * 1000000 + time[2]
local cost, forced, block, windows = tonumber(ARGV[1]), ARGV[2] == '1', tonumber(ARGV[3]), tonumber(ARGV[4])
local answer = {now}
local last = 1

local function decide(key, value, asked)
  local old = {}
  for number in string.gmatch(value or '', '%d+') do old[#old + 1] = tonumber(number) end
  local blocked = 0
  if value and string.sub(value, 1, 1) == 'b' then blocked = max(table.remove(old, 1) - now, 0) end
  local admitted = asked
  if blocked > 0 and not forced then admitted = 0 end

  -- What stands before this call, and how much each window has left.
  local new = {}
  local place = 1
  for window = 0, windows - 1 do
    local kind, unit = ARGV[5 + window * 3], tonumber(ARGV[6 + window * 3])
    local available = tonumber(ARGV[7 + window * 3])
    if kind == '0' then
      new[place] = max(old[place] or 0, now)
      available = available - ceil((new[place] - now) / unit)
      place = place + 1
    elseif kind == '1' then
      new[place], new[place + 1] = old[place] or 0, old[place + 1] or 0
      if new[place] <= now then new[place], new[place + 1] = now, 0 end
      available = available - new[place + 1]
      place = place + 2
    else
      -- A clock that was set back waits in the slice in which it was.
      new[place] = max(floor(now / unit), old[place] or 0)
      local shift = old[place] and new[place] - old[place] or 11
      for age = 0, 10 do
        local taken = age >= shift and old[place + 1 + age - shift] or 0
        new[place + 1 + age] = taken
        available = available - taken
      end
      place = place + 12
    end
    if not forced then admitted = min(admitted, floor(max(available, 0) / cost)) end
  end

  -- The same cost from each window.
  local taken = admitted * cost
  local forget = 0
  place = 1
  for window = 0, windows - 1 do
    local kind, unit = ARGV[5 + window * 3], tonumber(ARGV[6 + window * 3])
    if kind == '0' then
      new[place] = min(new[place] + taken * unit, 9000000000000000)
      forget = max(forget, new[place])
      place = place + 1
    elseif kind == '1' then
      new[place + 1] = min(new[place + 1] + taken, 9000000000000000)
      if new[place] <= now and taken > 0 then new[place] = now + unit end
      forget = max(forget, new[place])
      place = place + 2
    else
      new[place + 1] = min(new[place + 1] + taken, 9000000000000000)
      for age = 0, 10 do
        if new[place + 1 + age] > 0 then
          forget = max(forget, (new[place] + 11 - age) * unit)
          break
        end
      end
      place = place + 12
    end
  end

  local blocks = admitted < asked and blocked == 0 and block > 0
  if blocks then blocked = block end
  if admitted > 0 or blocks then
    local kept = {}
    if blocked > 0 then kept[1] = format('b%.0f', now + blocked) end
    for index = 1, #new do kept[#kept + 1] = format('%.0f', new[index]) end
    local left = max(ceil(max(forget - now, blocked) / 1000), 1)
    call('set', key, table.concat(kept, ' '), 'px', format('%.0f', left))
  end
  answer[last + 1], answer[last + 2] = admitted, blocked
  last = last + 2
  for index = 1, #new do
    last = last + 1
    answer[last] = new[index]
  end
end

-- One GCRA window with enough left, which is nearly always, needs little of that.
local simple = windows == 1 and ARGV[5] == '0' and not forced
local unit, capacity = tonumber(ARGV[6]), tonumber(ARGV[7])
local first = 4 + windows * 3
for nth, key in ipairs(KEYS) do
  local asked = tonumber(ARGV[first + nth])
  local value = call('get', key)
  local arrival = simple and asked > 0 and (not value and now or tonumber(value))
  if arrival then
    if arrival < now then arrival = now end
    arrival = arrival + asked * cost * unit
    if arrival - now > capacity * unit then arrival = nil end
  end
  if arrival then
    call('set', key, format('%.0f', arrival), 'px', format('%.0f', ceil((arrival - now) / 1000)))
    answer[last + 1], answer[last + 2], answer[last + 3] = asked, 0, arrival
    last = last + 3
  else
    decide(key, value, asked)
  end
end
return answer`

const blockScript = `
local time = redis.call('time')
local now = time[1] * 1000000 + time[2]
local states = string.gsub(redis.call('get', KEYS[1]) or '', '^b%d+ ?', '')
local left = math.max(redis.call('pttl', KEYS[1]), tonumber(ARGV[1]), 1)
redis.call('set', KEYS[1], string.format('b%.0f ', now + ARGV[1] * 1000) .. states, 'px', string.format('%.0f', left))`

/** `TypeError` or `RangeError` for options that make no sense. Connects at the first use. */
export class RedisRateLimitStore implements RateLimitStore {
  readonly #connection: RedisConnection
  readonly #prefix: string
  readonly decide: RateLimitStore['decide']

  constructor({ url, prefix = 'holdfast:limit:', timeoutMs = 2_000 }: RedisRateLimitOptions) {
    this.#connection = new RedisConnection(
      { url, timeoutMs, what: 'rate limits', store: 'the store of rate limits' },
      (client) => {
        client.defineCommand('decideLimits', { lua: decideScript })
        client.defineCommand('blockLimit', { numberOfKeys: 1, lua: blockScript })
      },
    )
    this.#prefix = prefix
    this.decide = decidingTogether((batch) => this.#send(batch), {
      maxItems: 100,
      maxRunning: 4,
    })
  }

  async penalize(question: RateLimitQuestion): Promise<RateLimitAnswer> {
    requireQuestion(question)
    const [answer] = await this.#send(new RateLimitBatch([question], { forced: true }))
    return answer!
  }

  async block(key: string, ms: number): Promise<void> {
    requireKey(key)
    requireBlock(ms)
    await this.#connection.run((client) => (client as unknown as Scripts).blockLimit(this.#prefix + key, ms))
  }

  async reset(key: string): Promise<void> {
    requireKey(key)
    await this.#connection.run((client) => client.del(this.#prefix + key))
  }

  async close(): Promise<void> {
    await this.#connection.close()
  }

  /** One command for all questions on the same terms; all commands are sent together. */
  async #send(batch: RateLimitBatch): Promise<RateLimitAnswer[]> {
    await this.#connection.run((client) =>
      Promise.all(batch.terms.map((terms) => this.#ask(client as unknown as Scripts, terms)))
    )
    return batch.answers()
  }

  async #ask(client: Scripts, terms: Terms): Promise<void> {
    const { asked } = terms
    const parameters: (string | number)[] = [asked.length]
    for (const { key } of asked) parameters.push(this.#prefix + key)
    parameters.push(...termNumbers(terms))
    for (const { count } of asked) parameters.push(count)
    const numbers = await client.decideLimits(...parameters)
    let at = 1
    for (const one of asked) {
      at = answer(one, {
        nowUs: numbers[0]!,
        admitted: numbers[at]!,
        blockedUs: numbers[at + 1]!,
        numbers,
        at: at + 2,
      })
    }
  }
}

interface Scripts {
  decideLimits(...parameters: (string | number)[]): Promise<number[]>
  blockLimit(key: string, ms: number): Promise<unknown>
}
