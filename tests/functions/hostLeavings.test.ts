import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { testHost } from '../fixtures/hostProject.ts'
import { descendantsOf, listProcesses, type ProcessInfo } from '../support/processes.ts'
import { waitFor } from '../support/wait.ts'

/** A host in a process of its own, with an idle isolate, one that waits and one that computes without end. */
async function hostProcess(...args: string[]) {
  const child = new Deno.Command(Deno.execPath(), {
    args: ['run', '-A', fileURLToPath(new URL('../fixtures/hostProcess.ts', import.meta.url)), ...args],
    stdout: 'piped',
    stderr: 'inherit',
  }).spawn()
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader()
  const { value = '' } = await reader.read()
  const { pids }: { pids: number[] } = JSON.parse(value)
  return { child, pids, reader }
}

async function alive(pids: number[]): Promise<number[]> {
  return (await listProcesses()).map(({ pid }) => pid).filter((pid) => pids.includes(pid))
}

/** The socket directory, as the command line of the host's shell names it. */
function directoryOf(family: ProcessInfo[]): string {
  const found = family.map(({ command }) => /holdfast-reaper (\/\S+)/.exec(command)?.[1])
  return found.find((directory) => directory !== undefined) ?? ''
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false)
}

describe('a host that is killed with -9', () => {
  test('leaves no isolate, even one that hangs or computes, no reaper and no directory', async () => {
    const { child, pids, reader } = await hostProcess()
    const descendants = await descendantsOf(child.pid)
    const family = descendants.map(({ pid }) => pid)
    expect(family).toEqual(expect.arrayContaining(pids))
    const directory = directoryOf(descendants)
    expect(await exists(directory)).toBe(true)
    child.kill('SIGKILL')
    await child.status
    await waitFor(async () => (await alive(family)).length === 0, {
      what: 'its processes to end',
    })
    await waitFor(async () => !(await exists(directory)), {
      what: 'its directory to go',
    })
    await reader.cancel()
  })

  test('takes its isolates along when its shell is killed before it', async () => {
    const { child, pids, reader } = await hostProcess()
    const family = await descendantsOf(child.pid)
    const directory = directoryOf(family)
    for (const { pid, command } of family) if (command.includes('holdfast-reaper')) Deno.kill(pid, 'SIGKILL')
    child.kill('SIGKILL')
    await child.status
    // All but the one that computes: nobody is left who could end that one but us.
    await waitFor(async () => (await alive(pids)).length <= 1, {
      what: 'the isolates to end',
    })
    for (const pid of await alive(pids)) Deno.kill(pid, 'SIGKILL')
    await reader.cancel()
    // The next host clears up what nobody could any more, once it is certain that it is nobody's.
    await Deno.utime(directory, 0, 0)
    await (await testHost()).close()
    expect(await exists(directory)).toBe(false)
  })
})

describe('close', () => {
  test('leaves nothing that keeps the process: it ends by itself', async () => {
    const { child, pids, reader } = await hostProcess('close')
    const ended = await waitFor(() => child.status, { what: 'the process to end by itself' })
    expect(ended.code).toBe(0)
    expect(await alive(pids)).toEqual([])
    await reader.cancel()
  })

  test('may be called twice, ends requests under way, and refuses later ones', async () => {
    const host = await testHost()
    const pending = host.ask('/trouble?do=hang')
    await waitFor(() => host.isolates()[0]?.inFlight === 1, { what: 'the request to be under way' })
    const closing = [host.close(), host.close()]
    expect((await pending).status).toBe(503)
    await Promise.all(closing)
    expect((await host.ask('/trouble')).status).toBe(503)
    expect(host.isolates()).toEqual([])
  })

  test('while isolates boot ends them, too', async () => {
    const host = await testHost({ isolates: 3 })
    const pending = [host.ask('/echo'), host.ask('/echo'), host.ask('/echo')]
    await waitFor(() => host.isolates().length > 0, { what: 'a boot to begin', everyMs: 1 })
    await host.close()
    for (const response of await Promise.all(pending)) expect([200, 503]).toContain(response.status)
    expect(host.isolates()).toEqual([])
  })
})
