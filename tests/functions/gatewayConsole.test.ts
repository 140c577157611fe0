// deno-lint-ignore-file no-console -- the console is what these tests are about
import { afterEach, expect, test, vi } from 'vitest'
import { interceptConsole, printingTo } from '../../local/gateway/apiConsole.ts'
import { localKeys } from '../../local/keys.ts'
import { fixtureProject } from '../fixtures/hostProject.ts'
import { testStack } from '../support/stack.ts'

afterEach(() => vi.restoreAllMocks())

test('a statement that the API refuses is one line of the log and nothing on the terminal', async () => {
  const printed = vi.spyOn(console, 'error').mockImplementation(() => {})
  const lines: string[] = []
  const stack = await testStack({ functions: fixtureProject.root, onLog: ({ text }) => lines.push(text) })
  const response = await fetch(`${stack.url}/rest/v1/absent`, { headers: { apikey: localKeys.publishable } })
  await response.body?.cancel()
  expect(response.status).toBe(404)
  expect(lines).toEqual([expect.stringMatching(/^API: Could not find the table 'public.absent'/)])
  expect(printed).not.toHaveBeenCalled()
  await stack.close()
})

test('what others print is untouched, during and after, whoever releases first', async () => {
  const printed = vi.spyOn(console, 'log').mockImplementation(() => {})
  const before = console.log
  const releases = [interceptConsole(), interceptConsole()]
  const caught: string[] = []
  await printingTo((line) => caught.push(line), async () => {
    await Promise.resolve()
    console.log('inside', { a: 1 }, Object.assign(new Error('refused'), { code: '42501' }))
  })
  console.log('outside')
  expect(caught).toEqual(['inside { a: 1 } refused (42501)'])
  expect(printed.mock.calls).toEqual([['outside']])
  for (const release of releases) release()
  for (const release of releases) release()
  expect(console.log).toBe(before)
})
