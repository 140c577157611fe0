/** `npm start` in a terminal: Ctrl-C, and the ways in which its launcher can vanish. */
import { beforeAll, expect, test } from 'vitest'
import { processStartOf, readState } from '../../local/state.ts'
import { waitFor } from '../support/wait.ts'
import { Checkout } from './support/checkout.ts'

let checkout: Checkout

beforeAll(async () => {
  checkout = await Checkout.open()
}, 30_000)

test('Ctrl-C stops everything, says so, and leaves no process; the data stay', async () => {
  const start = checkout.startInForeground()
  await start.ready()
  await fetch(`http://127.0.0.1:${checkout.port}/functions/v1/health`).then((response) =>
    response.body?.cancel()
  )
  start.signalGroup('SIGINT')
  await start.end()
  expect(start.text).toMatch(/Stopped\. The data stay/)
  await checkout.noProcesses()
  expect((await Deno.stat(checkout.path('.local', 'postgres'))).isDirectory).toBe(true)
}, 60_000)

test('a function that is broken while all runs answers 503 and touches no other', async () => {
  const file = checkout.path('supabase', 'functions', 'orders', 'index.ts')
  const good = await Deno.readTextFile(file)
  const start = checkout.startInForeground()
  await start.ready()
  const status = async (name: string) => {
    const response = await fetch(`http://127.0.0.1:${checkout.port}/functions/v1/${name}`)
    await response.body?.cancel()
    return response.status
  }
  try {
    expect(await status('health')).toBe(200)
    await Deno.writeTextFile(file, `const = 1\n${good}`)
    await waitFor(async () => await status('orders') === 503, { what: 'orders to answer 503', everyMs: 50 })
    expect(await status('health')).toBe(200)
    await Deno.writeTextFile(file, good)
    await waitFor(async () => await status('orders') === 401, { what: 'orders to answer again', everyMs: 50 })
  } finally {
    await Deno.writeTextFile(file, good)
    start.signalGroup('SIGTERM')
    await start.end()
  }
  await checkout.noProcesses()
}, 60_000)

test('Ctrl-C while it starts leaves no process', async () => {
  const start = checkout.startInForeground()
  await start.shows('Starting PostgreSQL')
  start.signalGroup('SIGINT')
  await start.end()
  await checkout.noProcesses()
}, 30_000)

test('a second Ctrl-C does not wait for what hangs', async () => {
  const start = checkout.startInForeground()
  await start.ready()
  const server = (await checkout.processes()).find(({ command }) => /postgres -D /.test(command))
  Deno.kill(server?.pid ?? 0, 'SIGSTOP')
  start.signalGroup('SIGINT')
  const state = await readState(checkout.localDir)
  await waitFor(async () => (await readState(checkout.localDir))?.phase === 'stopping', {
    what: 'it to be stopping',
  })
  // The same Ctrl-C arrives several times; a second one is one that comes later.
  const asked = Date.now()
  await waitFor(() => Date.now() - asked > 1_200, { what: 'a second one to count', everyMs: 50 })
  start.signalGroup('SIGINT')
  await start.end()
  expect(Date.now() - asked).toBeLessThan(8_000)
  expect(await processStartOf(state?.pid ?? 0)).toBeUndefined()
  await checkout.noProcesses()
}, 40_000)

test('its reader may leave: it goes on, and stops as asked', async () => {
  const paste = checkout.paste(
    `node local/run.mjs local/main.ts start --port ${checkout.port} 2>&1 | head -1`,
  )
  await waitFor(async () => (await checkout.run(['status'])).code === 0, {
    what: 'it to be ready',
    timeoutMs: 20_000,
    everyMs: 100,
  })
  expect(await checkout.run(['stop'])).toMatchObject({ code: 0 })
  await paste
  await checkout.noProcesses()
}, 40_000)

test('it ends when npm is killed: nobody could pass Ctrl-C on any more', async () => {
  const start = checkout.startInForeground()
  await start.ready()
  Deno.kill(start.pid, 'SIGKILL')
  await checkout.noProcesses()
  await start.end()
  expect(await readState(checkout.localDir)).toBeUndefined()
}, 30_000)
