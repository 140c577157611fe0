import { describe, expect, test } from 'vitest'
import { entrypointOf, platformAnswer, testHost, writeFile, writeProject } from '../fixtures/hostProject.ts'
import { waitFor } from '../support/wait.ts'

const host = await testHost({ limits: { requestIdleMs: 30_000, cpuMs: 500, memoryMb: 128 } })

describe('a function that cannot start is 503 BOOT_ERROR', () => {
  const broken = {
    syntax: {
      code: 'const x = ;',
      says: ['SyntaxError: Expression expected', 'functions/syntax/index.ts:1:11'],
    },
    throws: {
      code: `\nthrow new Error('no such luck')`,
      says: ['Error: no such luck', 'functions/throws/index.ts:2:7'],
    },
    missing: {
      code: `import './absent.ts'`,
      says: ['Module not found', 'absent.ts', 'functions/missing/index.ts:1:8'],
    },
    unmapped: { code: `import 'left-pad'`, says: ['left-pad', 'functions/unmapped/index.ts:1:8'] },
    silent: {
      code: 'export const nothing = 1',
      says: ['it neither exports default { fetch } nor calls Deno.serve()'],
    },
    exits: { code: 'Deno.exit(7)', says: ['exited with code 7'] },
    rejects: {
      code: `Promise.reject(new Error('early')); await new Promise(() => setTimeout(() => {}, 60_000))`,
      says: ['Uncaught (in promise) Error: early'],
    },
    endless: {
      code: `await new Promise(() => setTimeout(() => {}, 60_000))`,
      says: ['not ready to serve after 2 s'],
    },
  }

  test.each(Object.entries(broken))(
    '%s: names the error and its place, once on the log',
    async (name, { code, says }) => {
      const project = await writeProject({ [`supabase/functions/${name}/index.ts`]: code })
      const own = await testHost({ project, limits: { bootMs: 2_000 } })
      const answers = [
        await platformAnswer(await own.ask(`/${name}`)),
        await platformAnswer(await own.ask(`/${name}`)),
      ]
      for (const answer of answers) {
        expect(answer).toMatchObject({ status: 503, header: 'BOOT_ERROR', code: 'BOOT_ERROR' })
        for (const part of [`Function "${name}" failed to start: `, ...says]) {
          expect(answer.message)
            .toContain(part)
        }
        expect(answer.message).not.toContain('file://')
      }
      const logged = own.log.filter(({ stream, text }) =>
        stream === 'host' && text.includes('failed to start')
      )
      expect(logged).toHaveLength(1)
      expect(own.isolates()).toEqual([])
    },
  )

  test('and touches no other; once mended it is served', async () => {
    const project = await writeProject({
      'supabase/functions/bad/index.ts': 'throw new Error()',
      'supabase/functions/good/index.ts': `Deno.serve(() => new Response('good'))`,
    })
    const own = await testHost({ project })
    const [bad, good] = await Promise.all([own.ask('/bad'), own.ask('/good')])
    expect([bad.status, good.status]).toEqual([503, 200])
    await writeFile(entrypointOf(project, 'bad'), `Deno.serve(() => new Response('mended'))`)
    expect(await (await own.ask('/bad')).text()).toBe('mended')
  })
})

describe('an error of the handler', () => {
  test('that it throws is 500, marked as the function’s own, and the isolate goes on', async () => {
    await host.ask('/trouble')
    const before = host.isolates().find((one) => one.function === 'trouble')
    const response = await host.ask('/trouble?do=throw')
    expect([response.status, await response.text()]).toEqual([500, 'Internal Server Error'])
    expect(response.headers.get('sb-error-code')).toBe('EDGE_FUNCTION_ERROR')
    expect(host.isolates().find((one) => one.function === 'trouble')?.pid).toBe(before?.pid)
    await waitFor(() => host.texts('trouble').some((text) => text.includes('thrown on purpose')), {
      what: 'the error on the log',
    })
    expect(host.texts('trouble').join('\n')).not.toContain('local/functions/runtime.ts')
  })

  test('that it answers itself passes through', async () => {
    const response = await host.ask('/trouble?do=status')
    expect([response.status, await response.text()]).toEqual([503, 'chosen by the function'])
    expect(response.headers.get('x-own')).toBe('yes')
    expect(response.headers.get('sb-error-code')).toBe('EDGE_FUNCTION_ERROR')
  })
})

describe('an isolate that ends while it serves', () => {
  const endings = [
    { trouble: 'exit', status: 500, code: 'WORKER_ERROR', says: 'it exited with code 3' },
    {
      trouble: 'reject',
      status: 500,
      code: 'WORKER_ERROR',
      says: 'Uncaught (in promise) Error: rejected on purpose',
    },
    { trouble: 'heap', status: 546, code: 'WORKER_LIMIT', says: /heap memory|more than 128 MB of memory/ },
    { trouble: 'buffers', status: 546, code: 'WORKER_LIMIT', says: 'it used more than 128 MB of memory' },
    { trouble: 'loop', status: 546, code: 'WORKER_LIMIT', says: 'it computed for more than 500 ms' },
  ]

  test.each(endings)('by $trouble answers $status, and the next request gets a new one', async (ending) => {
    const answer = await platformAnswer(await host.ask(`/trouble?do=${ending.trouble}`))
    expect(answer).toMatchObject({ status: ending.status, header: ending.code, code: ending.code })
    expect(answer.message).toMatch(ending.says)
    expect(answer.message).not.toContain('file://')
    expect(await (await host.ask('/trouble')).text()).toBe('fine')
  })

  test('takes the requests it had begun with it, and none that it had not', async () => {
    const own = await testHost()
    await (await own.ask('/trouble')).text()
    const begun = Array.from({ length: 5 }, () => own.ask('/trouble?do=hang'))
    await waitFor(() => own.isolates()[0]?.inFlight === 5, { what: 'five requests to be under way' })
    await own.ask('/trouble?do=exit')
    for (const answer of await Promise.all(begun)) {
      expect(await platformAnswer(answer)).toMatchObject({ status: 500, code: 'WORKER_ERROR' })
    }
    expect((await own.ask('/trouble')).status).toBe(200)
  })

  test('in the middle of a response breaks the response off', async () => {
    const response = await host.ask('/trouble?do=half')
    expect(response.status).toBe(200)
    await expect(response.text()).rejects.toThrow()
    expect((await host.ask('/trouble')).status).toBe(200)
  })

  test('loses no request that it had not begun: isolates killed at any moment, every plain request is answered', async () => {
    const own = await testHost({ isolates: 2 })
    let asked = 0
    const statuses: number[] = []
    await Promise.all(Array.from({ length: 4 }, async () => {
      while (asked++ < 400) {
        if (asked % 25 === 0) killQuietly(own.isolates()[0]?.pid)
        const response = await own.ask('/echo', { method: 'POST', body: `number ${asked}` })
        statuses.push(response.status)
        await response.body?.cancel()
      }
    }))
    // A kill may catch a request that had begun: 500, never anything else, and never a hang.
    expect(new Set(statuses.filter((status) => status !== 200 && status !== 500))).toEqual(new Set())
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(statuses.length * 0.8)
  })
})

describe('a request without an answer', () => {
  test('is 504 after requestIdleMs, aborts in the function, and others go on', async () => {
    const own = await testHost({ limits: { requestIdleMs: 300 } })
    await own.ask('/stream')
    const started = performance.now()
    const answer = await platformAnswer(await own.ask('/stream?never&name=idle'))
    expect(answer).toMatchObject({ status: 504, header: 'IDLE_TIMEOUT', code: 'IDLE_TIMEOUT' })
    expect(answer.message).toContain('(0.3s)')
    expect(performance.now() - started).toBeLessThan(2_000)
    await waitFor(async () => (await (await own.ask('/stream?names')).json()).aborted.includes('idle'), {
      what: 'the function to hear that its request was given up',
    })
  })

  test('does not count the time its body takes', async () => {
    const own = await testHost({ limits: { requestIdleMs: 300 } })
    const response = await own.ask('/stream?down')
    const reader = response.body?.getReader()
    const started = performance.now()
    while (performance.now() - started < 500) expect((await reader?.read())?.done).toBe(false)
    await reader?.cancel()
  })
})

function killQuietly(pid: number | undefined): void {
  if (pid === undefined) return
  try {
    Deno.kill(pid, 'SIGKILL')
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error
  }
}
