/** HTTP load from outside: autocannon under Node, on keep-alive connections, each of which waits for its answer. */
import { fileURLToPath } from 'node:url'

export interface LoadOptions {
  url: string
  connections: number
  seconds: number
  /** Node processes that share the connections. @default 1 */
  processes?: number
  signal?: AbortSignal
}

export interface LoadResult {
  requests: number
  requestsPerSecond: number
  /** Latencies seen by the client, in milliseconds. */
  p50Ms: number
  p99Ms: number
}

/** What one process reports; latencies as pairs of milliseconds and how often, ascending. */
interface Share {
  requests: number
  failures: number
  seconds: number
  latencies: [ms: number, count: number][]
}

const script = fileURLToPath(new URL('./autocannon.mjs', import.meta.url))

/** Rejects when any request failed: figures of a server that refuses are worth nothing. */
export async function load(options: LoadOptions): Promise<LoadResult> {
  const { url, connections, seconds, processes = 1, signal } = options
  const perProcess = String(Math.ceil(connections / processes))
  const shares = await Promise.all(
    Array.from({ length: processes }, () => runShare([url, perProcess, String(seconds)], signal)),
  )
  const failures = sum(shares.map((share) => share.failures))
  if (failures > 0) throw new Error(`Cannot measure ${url}: ${failures} requests failed`)
  const latencies = shares.flatMap((share) => share.latencies).sort(([a], [b]) => a - b)
  return {
    requests: sum(shares.map((share) => share.requests)),
    requestsPerSecond: sum(shares.map((share) => share.requests / share.seconds)),
    p50Ms: percentile(latencies, 0.5),
    p99Ms: percentile(latencies, 0.99),
  }
}

async function runShare(args: string[], signal: AbortSignal | undefined): Promise<Share> {
  const { success, stdout, stderr } = await new Deno.Command('node', {
    args: [script, ...args],
    stdin: 'null',
    signal,
  }).output()
  if (!success) throw new Error(`autocannon failed: ${new TextDecoder().decode(stderr)}`)
  return JSON.parse(new TextDecoder().decode(stdout))
}

function percentile(latencies: readonly [ms: number, count: number][], share: number): number {
  let left = share * sum(latencies.map(([, count]) => count))
  for (const [ms, count] of latencies) {
    left -= count
    if (left <= 0) return ms
  }
  throw new RangeError('Cannot take a percentile of no latencies')
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
