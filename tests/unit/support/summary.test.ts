import { expect, test } from 'vitest'
import { formatSummary, isGood } from '../../support/summary.ts'

test('the last line names skipped tests only where there are any', () => {
  expect(formatSummary({ passed: 12, failed: 0, skipped: 0 })).toBe('12 passed, 0 failed')
  expect(formatSummary({ passed: 12, failed: 1, skipped: 2 })).toBe('12 passed, 1 failed, 2 skipped')
})

test('a run is good when something passed and nothing failed', () => {
  expect(isGood({ passed: 1, failed: 0, skipped: 3 })).toBe(true)
  expect(isGood({ passed: 1, failed: 1, skipped: 0 })).toBe(false)
  expect(isGood({ passed: 0, failed: 0, skipped: 3 })).toBe(false)
})
