/**
 * Puts load on one URL with autocannon, for the length of one process: `node autocannon.mjs URL CONNECTIONS SECONDS`.
 * Runs under Node, where autocannon is at home. Prints one JSON object, with how often each latency was seen:
 * autocannon's own percentiles are whole milliseconds, too coarse for a server on this machine.
 */
import autocannon from 'autocannon'

const bucketMs = 0.01
const longestMs = 1_000

const [url, connections, seconds] = process.argv.slice(2)
const counts = new Uint32Array(longestMs / bucketMs + 1)
const load = autocannon({ url, connections: Number(connections), duration: Number(seconds) })
load.on('response', (_client, _status, _bytes, latencyMs) => {
  counts[Math.min(Math.floor(latencyMs / bucketMs), counts.length - 1)]++
})
const result = await load

const latencies = []
counts.forEach((count, bucket) => count > 0 && latencies.push([(bucket + 0.5) * bucketMs, count]))
process.stdout.write(JSON.stringify({
  requests: result['2xx'],
  failures: result.errors + result.non2xx,
  seconds: result.duration,
  latencies,
}))
