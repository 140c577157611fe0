/** local/run.mjs, what every npm script goes through: from a bare folder to the project's own Deno. */
import { join } from 'node:path'
import { beforeAll, expect, test } from 'vitest'
import { lockStack, readState, writeState } from '../../local/state.ts'
import { Checkout } from './support/checkout.ts'

let checkout: Checkout

beforeAll(async () => {
  checkout = await Checkout.open()
}, 30_000)

test('the exit code of the script is the exit code of npm run', async () => {
  await Deno.writeTextFile(checkout.path('exit.ts'), 'Deno.exit(Number(Deno.args[0]))')
  for (const code of [0, 1, 42]) {
    expect(await checkout.paste(`node local/run.mjs exit.ts ${code}`)).toMatchObject({ code })
  }
})

test('it works without HOME, and with an empty one', async () => {
  for (const home of ['env -u HOME -u DENO_DIR', 'env -u DENO_DIR HOME=']) {
    const { code, stderr } = await checkout.paste(
      `${home} node local/run.mjs local/main.ts status`,
    )
    expect({ code, stderr }).toEqual({ code: 1, stderr: expect.stringContaining('Nothing runs here') })
  }
})

test('missing packages are installed with npm ci; what then lacks is told with its fix', async () => {
  const folder = await folderWithout('empty', {})
  const { code, stderr } = await checkout.paste(`cd '${folder}' && node local/run.mjs script.ts`)
  expect(code).toBe(1)
  expect(stderr).toMatch(/^Installing 0 packages/)
  expect(stderr).toMatch(/Deno binary for \S+ is not installed[\s\S]*fix: {3}Run npm ci/)
})

test('a lock file that does not fit package.json: npm says what, and the exit code is not 0', async () => {
  const folder = await folderWithout('unfit', { dependencies: { nowhere: 'file:./nowhere' } })
  const { code, stderr } = await checkout.paste(`cd '${folder}' && node local/run.mjs script.ts`)
  expect(code).toBeGreaterThan(0)
  expect(stderr).toMatch(/in sync[\s\S]*Error: npm ci failed/)
})

test('a pid that another process has by now is not taken for the stack', async () => {
  const state = {
    pid: Deno.pid,
    processStart: 'another time',
    mode: 'detached',
    phase: 'ready',
    generation: 1,
    startedAt: new Date().toISOString(),
  } as const
  await Deno.mkdir(checkout.localDir, { recursive: true })
  await writeState(checkout.localDir, state)
  expect(await readState(checkout.localDir)).toBeUndefined()
  expect(await checkout.run(['status'])).toMatchObject({ code: 1 })
})

test('a state file that is damaged counts as none', async () => {
  await Deno.mkdir(checkout.localDir, { recursive: true })
  await Deno.writeTextFile(checkout.path('.local', 'state.json'), '{"pid":')
  expect(await readState(checkout.localDir)).toBeUndefined()
})

test('a local directory has one lock, which is free again once it is released', async () => {
  const first = await lockStack(checkout.localDir)
  expect(first).toBeDefined()
  expect(await lockStack(checkout.localDir)).toBeUndefined()
  first?.release()
  const second = await lockStack(checkout.localDir)
  expect(second).toBeDefined()
  second?.release()
})

/** A project with the bootstrap and an empty lock file, but without node_modules. */
async function folderWithout(name: string, more: Record<string, unknown>): Promise<string> {
  const folder = checkout.path(name)
  const manifest = { name, version: '1.0.0' }
  await Deno.mkdir(join(folder, 'local'), { recursive: true })
  await Deno.copyFile(checkout.path('local', 'run.mjs'), join(folder, 'local', 'run.mjs'))
  await Deno.writeTextFile(join(folder, 'package.json'), JSON.stringify({ ...manifest, ...more }))
  await Deno.writeTextFile(
    join(folder, 'package-lock.json'),
    JSON.stringify({ ...manifest, lockfileVersion: 3, requires: true, packages: { '': manifest } }),
  )
  return folder
}
