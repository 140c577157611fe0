/** A real Redis without persistence, on a free port. */
import { inject } from 'vitest'
import { aptCanInstall, aptInstall } from '../../local/postgres/apt.ts'
import { freePort } from '../../local/postgres/cluster.ts'
import { silentProgress } from '../../local/progress.ts'
import './provided.ts'
import { waitFor } from './wait.ts'

export interface TestRedis {
  url: string
  /** Stops it as a crash would: nothing is kept. */
  stop(): Promise<void>
  /** Starts it again on the same port, empty. */
  start(): Promise<void>
}

const program = '/usr/bin/redis-server'

/** Undefined where Redis is not installed and cannot be. Whoever starts it stops it. */
export async function startRedis(): Promise<TestRedis | undefined> {
  if (!(await installed()) && await aptCanInstall()) await aptInstall(['redis-server'], silentProgress)
  if (!(await installed())) return undefined
  const port = freePort()
  let child: Deno.ChildProcess | undefined
  const redis: TestRedis = {
    url: `redis://127.0.0.1:${port}`,
    async stop() {
      child?.kill('SIGKILL')
      await child?.status
      child = undefined
    },
    async start() {
      const options = { port, bind: '127.0.0.1', save: '', appendonly: 'no', dir: inject('runDir') }
      const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)])
      child = new Deno.Command(program, { args, stdin: 'null', stdout: 'null', stderr: 'null' }).spawn()
      await waitFor(async () => (await Deno.connect({ hostname: '127.0.0.1', port })).close() ?? true, {
        what: `Redis on port ${port}`,
      })
    },
  }
  await redis.start()
  return redis
}

async function installed(): Promise<boolean> {
  return await Deno.stat(program).then(() => true, () => false)
}
