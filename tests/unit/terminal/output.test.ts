import { expect, test } from 'vitest'
import { LocalError } from '../../../local/errors.ts'
import { describeFailure } from '../../../local/terminal/output.ts'

test('describeFailure() says what happened, where, and what to do', () => {
  const error = new LocalError('Cannot start', { where: 'a file', fix: 'Mend it.' })
  expect(describeFailure(error, false)).toBe('Error: Cannot start\n  where: a file\n  fix:   Mend it.')
})

test.each([
  new Deno.errors.PermissionDenied("Permission denied (os error 13): open '/project/.local/lock'"),
  new Error("EACCES: permission denied, open '/project/.local/logs/stack.log'"),
])('describeFailure() tells whoever may not write a file how to own it: $message', (error) => {
  expect(describeFailure(error, false)).toMatch(/fix: .*sudo chown -R .* \.local/)
})

test('describeFailure() asks for a report of what nobody foresaw, and --debug shows where it came from', () => {
  const error = new Error('no such luck', { cause: new Error('deep down') })
  expect(describeFailure(error, false)).toMatch(/^Error: no such luck\n {2}fix: {3}Run it again with --debug/)
  expect(describeFailure(error, true)).toMatch(/at .*output\.test\.ts[\s\S]*Caused by: Error: deep down/)
})
