/** A Redis of one's own without persistence, for one measure. */
import { freePort } from '../../local/postgres/cluster.ts'
import { openRunDirectory } from '../../tests/support/runDirectory.ts'
import { waitFor } from '../../tests/support/wait.ts'
import type { Bench } from '../support/suite.ts'

const program = '/usr/bin/redis-server'

/** Its URL; undefined where Redis is not installed. */
export async function startRedis({ resources }: Bench): Promise<string | undefined> {
  if (!await Deno.stat(program).then(() => true, () => false)) return undefined
  const dir = resources.adopt(
    await openRunDirectory(),
    (directory) => Deno.remove(directory, { recursive: true }),
  )
  const port = freePort()
  const options = { port, bind: '127.0.0.1', save: '', appendonly: 'no', dir }
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)])
  resources.adopt(
    new Deno.Command(program, { args, stdin: 'null', stdout: 'null', stderr: 'null' }).spawn(),
    async (child) => {
      child.kill('SIGKILL')
      await child.status
    },
  )
  await waitFor(async () => (await Deno.connect({ hostname: '127.0.0.1', port })).close() ?? true, {
    what: `Redis on port ${port}`,
  })
  return `redis://127.0.0.1:${port}`
}
